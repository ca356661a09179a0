"""What is ours of Celery and Flower: what a worker takes, how a task ends, what the dashboard shows."""
