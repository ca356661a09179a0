"""procrastinate: a job for each command, and one for each thing that follows.

What follows is deferred in the command's transaction. A job that changes a learner has the learner's lock, so a
learner's commands run one at a time and in order. A credit has the lock of its target, and a mail that of the
learner's mails: they keep their order, and hold up no command.
"""
