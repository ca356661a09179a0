"""The obvious alternative: a Celery task for each command, which commits, then queues effects with `.delay()`.

It has no outbox, no inbox and no batches. A crash between the commit and a `.delay()` loses the effect.
"""
