"""Plain Celery: a task for each command, which commits, then queues what follows with `.delay()`.

It has no outbox, no inbox and no batches. A crash between the commit and a `.delay()` loses what follows. Celery
keeps no order: a task that is too early is retried.
"""
