"""A driver that plays the LMS: publishes the work through `events.publisher` on one connection.

A request names the learners by `first` and `learners` (their number), and has these members:

- `wave`: `first`, `second` or `stream`. In a stream, a learner's second wave follows the first one after `LAG`
other
  learners have begun.
- `per_s`: the largest number of commands a second; or `pause_s`: the range of a random pause before each command.
- `stamps`: whether the answer has `stamps`: for each command `[id, before, after]`, with Unix times around the
call.

The answer has `commands`, the number of commands, and `waited`, the seconds spent in calls of the publisher.
"""

import argparse
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import driver_protocol
from benchmarks.workload import FIRST_WAVE, SECOND_WAVE, Step, steps
from events.publisher import Publisher

SOURCE = "/lms/benchmark"
LAG = 20

Receipt = tuple[str, float, float]


def main() -> None:
    """Publish until the end of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker-url", required=True)
    parser.add_argument("--shards", type=int, default=1)
    options = parser.parse_args()
    with Publisher(options.broker_url, source=SOURCE, shards=options.shards) as publisher:
        driver_protocol.write({"ready": True})
        for request in driver_protocol.requests():
            driver_protocol.write(serve(publisher, request))


def serve(publisher: Publisher, request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request."""
    todo = list(_order(range(request["first"], request["first"] + request["learners"]), request["wave"]))
    stamps = list(_published(publisher, todo, request.get("per_s"), request.get("pause_s")))
    return {
        "commands": len(stamps),
        "waited": sum(after - before for _, before, after in stamps),
        **({"stamps": stamps} if request.get("stamps") else {}),
    }


def _order(learners: range, wave: str) -> Iterable[Step]:
    match wave:
        case "first":
            return steps(learners, FIRST_WAVE)
        case "second":
            return steps(learners, SECOND_WAVE)
        case "stream":
            return _stream(learners)
        case _:
            raise ValueError(f"no such wave: {wave}")


def _stream(learners: range) -> Iterator[Step]:
    for number in range(len(learners) + LAG):
        yield from steps(learners[number : number + 1], FIRST_WAVE)
        if number >= LAG:
            yield from steps(learners[number - LAG : number - LAG + 1], SECOND_WAVE)


def _published(
    publisher: Publisher, todo: Iterable[Step], per_s: float | None, pause_s: tuple[float, float] | None
) -> Iterator[Receipt]:
    began = time.perf_counter()
    for number, step in enumerate(todo):
        if per_s is not None:
            time.sleep(max(0.0, began + number / per_s - time.perf_counter()))
        if pause_s is not None:
            time.sleep(random.uniform(*pause_s))  # noqa: S311 - no secret
        before = time.time()
        command_id = publish(publisher, step)
        yield command_id, before, time.time()


def publish(publisher: Publisher, step: Step) -> str:
    """Publish one command and return its id."""
    user_id = str(step.learner)
    if step.to_status is None:
        return publisher.create_attempt(exam_id=step.exam, user_id=user_id, taking_as_proctored=True)
    return publisher.update_status(exam_id=step.exam, user_id=user_id, to_status=step.to_status)


if __name__ == "__main__":
    main()
