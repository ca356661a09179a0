"""Services that take their time: an LMS and a mail server that take 50 ms for each call and each mail.

What the learner waits for is the request that changes the status: with ours the calls of the publisher, with the
peer all of the work. Here it is the sum of a learner's requests. What stands in for the LMS and the mail server is
not measured.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from benchmarks import rivals
from benchmarks.bench import Bench, Contestant, Figures
from benchmarks.engines import Broker
from benchmarks.groups import whole
from benchmarks.running import driver
from invigilator.local.guard import Guard

NAME = "services"
SERVICE_MS = 50
PEER = rivals.PEER


def ours_name(broker: str, workers: int = 1) -> str:
    """Of the contestant."""
    return f"ours on {broker}, {workers} of each worker"


def contestants(bench: Bench) -> Sequence[Contestant]:
    """The peer and ours."""
    peer = Contestant(PEER, partial(rivals.peer, bench, bench.size(6, 3), SERVICE_MS))
    ours = [
        Contestant(
            ours_name(broker.name), partial(measure, bench, broker, SERVICE_MS, 1, bench.size(120, 40))
        )
        for broker in bench.brokers
    ]
    return [*rivals.available([peer]), *ours]


def measure(bench: Bench, broker: Broker, service_ms: int, workers: int, learners: int) -> Figures:
    """All of ours; so many processes of `effects` and of `mail` each."""
    with services(bench, service_ms) as urls:
        numbers = {"effects": workers, "mail": workers}
        return whole.measure(bench, broker, numbers, urls, learners)


@contextmanager
def services(bench: Bench, service_ms: int) -> Iterator[Mapping[str, object]]:
    """The settings for an LMS and a mail server that take so long."""
    command = ["python", "-m", "benchmarks.services", "--service-ms", str(service_ms)]
    with Guard() as guard, driver("services", command, bench.folder, guard) as (_, said):
        yield {"LMS_URL": said["lms_url"], "SMTP_URL": said["smtp_url"]}
