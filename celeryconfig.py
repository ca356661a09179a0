"""How Celery is set up. Plain values: the broker's URL is added by `worker.app` when it is first needed."""

from worker.effects.kinds import QUEUES

# JSON only: nothing that is read from a queue is ever executed.
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]

# The row in the database is the truth, the message only says "look". So a message is acknowledged before
# its task runs: running it twice, or not at all, costs one query or one poll.
task_acks_late = False
task_ignore_result = True
task_routes = {f"effects.{kind}": {"queue": queue} for kind, queue in QUEUES.items()}

# One message in hand for each thread; the rest stay where another worker can have them.
worker_prefetch_multiplier = 1

# Flower.
worker_send_task_events = True
task_send_sent_event = True

# A broker that is away is waited for, however long.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_heartbeat = 10
