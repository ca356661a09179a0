"""Our subclasses of Celery's and Flower's classes: what a worker accepts, how a task ends, what Flower shows."""
