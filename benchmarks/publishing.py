"""What every driver does that plays the LMS: it publishes the commands that a request asks for.

A request names the learners by `first` and `learners` (their number), and has these members:

- `wave`: `first`, `second` or `stream` (`benchmarks.workload.ordered`).
- `per_s`: the largest number of commands a second; or `pause_s`: the range of a random pause before each command.
- `stamps`: whether the answer has `stamps`: for each command `[id, before, after]`, with Unix times around the
call.

The answer has `commands`, the number of commands; `calls`, the number of credits and mails that follow from them;
and `waited`, the seconds spent in calls of the publisher.

This module imports the standard library only, because some drivers run in environments of their own.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks import driver_protocol
from benchmarks.workload import CALLS, Step, ordered

Publish = Callable[[Step], str]
"""Publishes a command and returns its id."""
Receipt = tuple[str, float, float]


def serve(publish: Publish, versions: dict[str, str] | None = None) -> None:
    """Say that the driver is ready, then answer requests until the end of standard input.

    Parameters:
        publish: publishes a command and returns its id.
        versions: the versions of the packages that are measured.
    """
    driver_protocol.write({"ready": True, **(versions or {})})
    for request in driver_protocol.requests():
        driver_protocol.write(_answer(publish, request))


def _answer(publish: Publish, request: dict[str, Any]) -> dict[str, Any]:
    learners = range(request["first"], request["first"] + request["learners"])
    todo = list(ordered(learners, request["wave"]))
    stamps = list(_published(publish, todo, request.get("per_s"), request.get("pause_s")))
    return {
        "commands": len(stamps),
        "calls": sum(CALLS.get(step.to_status or "", 0) for step in todo),
        "waited": sum(after - before for _, before, after in stamps),
        **({"stamps": stamps} if request.get("stamps") else {}),
    }


def _published(
    publish: Publish, todo: Iterable[Step], per_s: float | None, pause_s: tuple[float, float] | None
) -> Iterator[Receipt]:
    began = time.perf_counter()
    for number, step in enumerate(todo):
        if per_s is not None:
            time.sleep(max(0.0, began + number / per_s - time.perf_counter()))
        if pause_s is not None:
            time.sleep(random.uniform(*pause_s))  # noqa: S311 - no secret
        before = time.time()
        command_id = publish(step)
        yield command_id, before, time.time()
