"""How Celery is set up. Plain values: the broker's URL is added by `worker.app` when it is first needed."""

from kombu import Exchange, Queue

from worker.kinds import QUEUES, task_name

# JSON only: nothing that is read from a queue is ever executed.
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]
# And of what is read, only what our relay sends is looked at.
worker_consumer = "worker.celery.strict_consumer:StrictConsumer"

# The row in the database is the truth, the message only says "look". So a message is acknowledged before
# its task runs: running it twice, or not at all, costs one query or one poll.
task_acks_late = False
task_ignore_result = True
task_routes = {task_name(kind): {"queue": queue} for kind, queue in QUEUES.items()}

# What a worker without --queues works on: every queue of effects. Declared as Celery declares a queue that it
# makes up, because RabbitMQ refuses to have one that exists declared in another way.
task_queues = [Queue(queue, Exchange(queue), queue) for queue in sorted(set(QUEUES.values()))]
task_create_missing_queues = False

# Effects wait for others, and share transactions; --pool and --concurrency say otherwise.
worker_pool = "threads"
worker_concurrency = 16

# One message in hand for each thread; the rest stay where another worker can have them.
worker_prefetch_multiplier = 1
# Or, after a lost connection, the threads would ask RabbitMQ for their messages in hand back, one by one, each
# reading the answer from the socket that the main thread reads: the new connection breaks, again and again (seen).
worker_enable_prefetch_count_reduction = False

# Flower.
worker_send_task_events = True

# A broker that is away is waited for, however long.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# So is a queue that is deleted at the moment when a worker has declared it and not yet subscribed (seen).
broker_channel_error_retry = True
broker_heartbeat = 10
