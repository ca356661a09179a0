"""Celery's settings. `worker.app` adds the broker's URL when it is first needed."""

from kombu import Exchange, Queue

from worker.kinds import QUEUES

# JSON only, never pickle: data from a queue is never executed.
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]
# This consumer passes on only messages that our relay can have sent.
worker_consumer = "worker.celery.strict_consumer:StrictConsumer"

# A message only says "look at effect X"; the row in the database decides. Therefore a message is acknowledged
# before its task runs. A message that is delivered twice costs one query. A lost one is offered again by the relay.
task_acks_late = False
task_ignore_result = True
task_routes = {f"effects.{kind}": {"queue": queue} for kind, queue in QUEUES.items()}

# A worker without --queues consumes every queue of effects. The queues are declared in the way in which Celery
# creates a missing queue, because RabbitMQ refuses a declaration that differs from the existing queue.
task_queues = [Queue(queue, Exchange(queue), queue) for queue in sorted(set(QUEUES.values()))]
task_create_missing_queues = False

# Threads, because an effect mostly waits for its service, and effects of one process share transactions.
# `--pool` and `--concurrency` override this.
worker_pool = "threads"
worker_concurrency = 16

# Each thread prefetches one message. The others stay in the queue for other workers.
worker_prefetch_multiplier = 1
# With this on, each thread restores the prefetch count after a lost connection. It reads RabbitMQ's answer from the
# socket that the main thread reads, which breaks the new connection again and again (seen).
worker_enable_prefetch_count_reduction = False

# Flower needs these events.
worker_send_task_events = True

# A worker waits without limit for a broker that is away.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# A worker also tries again when a queue is deleted between its declaration and the subscription (seen).
broker_channel_error_retry = True
broker_heartbeat = 10
