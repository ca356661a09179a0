"""The obvious alternative: a Celery task for each command, which saves and then queues each effect with `.delay()`.

No outbox, no inbox, no batches: a crash between the commit and a `.delay()` loses the effect for good.
"""
