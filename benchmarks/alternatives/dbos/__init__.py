"""DBOS: a durable workflow for each command. What follows from the command are steps of its workflow.

The change of the attempt is a transaction of a datasource. It happens exactly once, because its result is committed
with it. A step is tried again after a crash until its result is written. The queue is partitioned by learner and
runs one workflow of a partition at a time, so a learner's commands are in order, and a slow service holds them up.
"""
