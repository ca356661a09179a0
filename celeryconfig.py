"""The settings of Celery. `worker.app` adds the broker's URL and the queues when they are first needed."""

from worker.kinds import QUEUES, task_name

# JSON only, so that reading a message never runs code.
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]
# Of what is read, the consumer accepts only what our relay sends.
worker_consumer = "worker.celery.strict_consumer:StrictConsumer"

# The row in the database is the truth, the message only says "look". So a message is acknowledged before its
# task runs: a task that runs twice costs one query, and one that is lost costs one poll.
task_acks_late = False
task_ignore_result = True
# Nothing is stored, so threads may share what would store it (`worker.app`).
result_backend_thread_safe = True
task_routes = {task_name(kind): {"queue": queue} for kind, queue in QUEUES.items()}

# A worker without --queues serves every queue of effects (`worker.celery.queues`).
task_create_missing_queues = False

# Effects wait for services and share transactions, so they run in threads. --pool and --concurrency override this.
worker_pool = "threads"
worker_concurrency = 16

# Each thread holds one message. The rest stay in the queue, where another worker can take them.
worker_prefetch_multiplier = 1
# Otherwise, after a lost connection, each thread would restore the prefetch count on RabbitMQ and read the answer
# from the socket that the main thread reads. That breaks the new connection, again and again (seen).
worker_enable_prefetch_count_reduction = False

# Events of tasks cost a tenth of a worker's CPU. A worker sends them for a while after it has connected, and after
# each time that Flower asks for them (`worker.celery.task_events`). `-E` in the Procfile sends them always.
worker_send_task_events = False

# Workers wait for a broker that is away, however long.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# They also go on after a queue was deleted between its declaration and the subscription (seen).
broker_channel_error_retry = True
broker_heartbeat = 10
