"""The whole system with slow services: an LMS and a mail server that take 50 ms for each call and each mail.

A learner waits for the requests that change the status. With our system that is the time in calls of the publisher,
with the peer it is the time of all work. The figure is the sum over a learner's requests. The processes that
play the LMS and the mail server are not measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups import whole
from benchmarks.ours import EVERYBODY
from benchmarks.running import driver
from invigilator.local.guard import Guard

NAME = "services"
SERVICE_MS = 50
PEER = rivals.PEER


def ours_name(broker: str, workers: int = 1) -> str:
    """Return the contestant's name."""
    return f"ours on {broker}, {workers} of each worker"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """Return the peer, and our system on each broker."""
    peer = Contestant(PEER, partial(rivals.peer, bench, 6, SERVICE_MS))
    ours = [
        Contestant(ours_name(broker.name), partial(measure, bench, broker, SERVICE_MS, 1, 120))
        for broker in bench.brokers
    ]
    return [*rivals.available([peer]), *ours]


def measure(bench: Bench, broker: Broker, service_ms: int, workers: int, learners: int) -> Figures:
    """Measure our whole system with slow services and `workers` processes each of `effects` and `mail`."""
    with services(bench, service_ms) as urls:
        numbers = dict.fromkeys(EVERYBODY, 1) | {"effects": workers, "mail": workers}
        return whole.measure(bench, broker, numbers, urls, learners)


@contextmanager
def services(bench: Bench, service_ms: int) -> Iterator[Mapping[str, object]]:
    """Run an LMS and a mail server that take `service_ms` for each call. Yield the settings with their URLs."""
    command = ["python", "-m", "benchmarks.services", "--service-ms", str(service_ms)]
    with Guard() as guard, driver("services", command, bench.folder, guard) as (_, said):
        yield {"LMS_URL": said["lms_url"], "SMTP_URL": said["smtp_url"]}
