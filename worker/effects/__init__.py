"""Effects out: what transitions owe, run as Celery tasks: claim, run, record."""
