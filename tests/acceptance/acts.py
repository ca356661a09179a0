"""What must be true of late commands: each changed the attempt that it named, and at the time when it happened."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Row

BELIEVED_FOR = timedelta(days=1)
BELIEVED_AHEAD = timedelta(seconds=60)

STEPS = """
SELECT t.*, effect_id IS NOT NULL AS cascaded, started_at, completed_at
FROM transitions t JOIN attempts a ON attempt_id = a.id
ORDER BY attempt_id, t.version
"""
REMOVALS = "SELECT attempt_id, source, command_id FROM effects WHERE kind = 'delete_student_attempt'"

Key = tuple[str, str]


def misdirected(
    steps: Iterable[Row[Any]], removals: Iterable[Row[Any]], bodies: Mapping[Key, bytes]
) -> Iterator[object]:
    """Find changes of another attempt than the one that the command named, or in a status that it did not expect.

    Parameters:
        steps: the rows of `STEPS`.
        removals: the rows of `REMOVALS`.
        bodies: the commands, by source and id.
    """
    names = {}
    for step in steps:
        data = {} if step.cascaded else _data(step, bodies)
        if step.version == 1:
            names[step.attempt_id] = (
                data.get("attempt_code") or str(step.attempt_id),
                data.get("external_id"),
            )
        elif not _fits(data, names[step.attempt_id]) or not _expects(data, step.from_status):
            yield step
    yield from (row for row in removals if not _fits(_data(row, bodies), names[row.attempt_id]))


def _data(row: Row[Any], bodies: Mapping[Key, bytes]) -> Mapping[str, Any]:
    data: Mapping[str, Any] = json.loads(bodies[row.source, row.command_id])["data"]
    return data


def _fits(data: Mapping[str, Any], names: tuple[str, str | None]) -> bool:
    code, external_id = names
    return data.get("attempt_code") in (None, code) and data.get("external_id") in (None, external_id)


def _expects(data: Mapping[str, Any], status: str) -> bool:
    expected = data.get("from_statuses")
    return expected is None or status in expected


def mistimed(steps: Sequence[Row[Any]], bodies: Mapping[Key, bytes]) -> Iterator[object]:
    """Find changes that did not happen when they must have, and attempts with other times than their history.

    A change happens at the time of its command, if that is believed, and never before the change before it. The
    times of the commands are hours away from the bounds of what is believed.

    Parameters:
        steps: the rows of `STEPS`. An older release has written those without `recorded_at`; they are passed over.
        bodies: the commands, by source and id.
    """
    now = datetime.now(UTC)
    of_acts = {
        (step.source, step.command_id): step.at
        for step in steps
        if not step.cascaded and step.recorded_at is not None
    }
    for _, of_attempt in groupby(steps, key=lambda step: step.attempt_id):
        before = datetime.min.replace(tzinfo=UTC)
        history = list(of_attempt)
        for step in history:
            key = step.source, step.command_id
            told = of_acts.get(key) if step.cascaded else _believed(bodies[key], now)
            if step.recorded_at is not None and step.at != max(told or step.recorded_at, before):
                yield step
            before = step.at
        yield from _with_other_times(history)


def _believed(body: bytes, now: datetime) -> datetime | None:
    stated = json.loads(body).get("time")
    if stated is None:
        return None
    time = datetime.fromisoformat(stated)
    return time if now - BELIEVED_FOR <= time <= now + BELIEVED_AHEAD else None


def _with_other_times(history: Sequence[Row[Any]]) -> Iterator[object]:
    last = history[-1]
    started = [step.at for step in history if step.to_status == "started"]
    submitted = [step.at for step in history if step.to_status == "submitted"]
    expected = (started[0] if started else None, submitted[-1] if submitted else None)
    if (last.started_at, last.completed_at) != expected:
        yield last
