"""What Celery and kombu cost for an effect: our worker, with a runner that does nothing.

`python -m benchmarks.null_tasks` prints the CPU milliseconds of a message, for the worker and for the broker.
No effect costs less while it is a Celery task of its own. It starts `celery -A benchmarks.null_tasks worker`.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from celery.signals import worker_init
from kombu import Connection, Exchange, Producer, Queue

from benchmarks import engines
from benchmarks.engines import Broker
from benchmarks.meter import Meter
from benchmarks.running import Process, plain_environment
from db.offers import Offer
from invigilator.local.guard import Guard
from worker import app as worker_app
from worker.celery.dispatcher import publish_task
from worker.effects.answers import Answer
from worker.kinds import QUEUES, EffectKind

app = worker_app.app
KIND = EffectKind.SET_CREDIT_STATUS
COMMAND = (
    "celery -A benchmarks.null_tasks worker --pool threads --concurrency 16 --hostname null@%h "
    f"--queues {QUEUES[KIND]} --without-gossip --without-mingle"
)
MESSAGES, WARM, BATCH = 5_000, 500, 100
POLL_S = 0.02


class NullRunner:
    """Answers at once."""

    def run(self, effect_id: UUID, kind: str) -> Answer:
        """Do nothing."""
        return Answer(f"{kind}: done", f"effect {effect_id}", is_done=True)


@worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _do_nothing(**_: object) -> None:
    worker_app.process_runner = NullRunner()  # type: ignore[assignment]


def _publish(broker: Broker, number: int) -> None:
    payload = {"user_id": "1", "course_id": "c", "content_id": "b", "status": "submitted"}
    with Connection(broker.url) as connection, closing(Producer(connection, auto_declare=False)) as producer:
        for _ in range(number // BATCH):
            with producer.batch():  # as the relay does
                for _ in range(BATCH):
                    publish_task(Offer(uuid4(), KIND, payload, 0), producer)


def _waiting(broker: Broker) -> int:
    queue = Queue(QUEUES[KIND], Exchange(QUEUES[KIND]), QUEUES[KIND])
    with Connection(broker.url) as connection:
        return int(queue.bind(connection.default_channel).queue_declare().message_count)


@contextmanager
def _worker(broker: Broker, database_url: str, folder: Path) -> Iterator[Process]:
    urls = {"INVIGILATOR_DATABASE_URL": database_url, "INVIGILATOR_BROKER_URL": broker.url}
    with Guard() as guard:
        environment = {**plain_environment(), **urls}
        process = Process("null", COMMAND, environment, folder / f"null-{time.time_ns()}.log", guard)
        try:
            yield process
        finally:
            process.kill()


def _drain(broker: Broker, process: Process, number: int) -> None:
    _publish(broker, number)
    while _waiting(broker):
        process.check()
        time.sleep(POLL_S)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure with each broker."""
    with (
        tempfile.TemporaryDirectory(prefix="invigilator-null-") as folder,
        engines.running(Path(folder), _say) as up,
    ):
        for broker in up.brokers.values():
            broker.reset()
            _waiting(broker)  # declares the queue
            with _worker(broker, up.database.url, Path(folder)) as process:
                _drain(broker, process, WARM)
                meter = Meter({"worker": [process.pid], "broker": list(broker.pids)})
                before = meter.read()
                _drain(broker, process, MESSAGES)
                used = meter.read().since(before)
            each = {name: round(1000 * seconds / MESSAGES, 3) for name, seconds in used.cpu_s.items()}
            _say(f"{broker.name}: CPU ms a message {each}")


if __name__ == "__main__":
    main()
