"""A small application for the benchmark's work, three times: plain Celery, procrastinate and DBOS run it.

What the three have in common is in this package: the rules, the tables and the services. It imports the standard
library only, because procrastinate and DBOS have environments of their own.
"""
