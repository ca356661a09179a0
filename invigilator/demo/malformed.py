"""Malformed messages for the demo, for each quarantine code that a single message can cause."""

import json
from dataclasses import dataclass
from typing import Any

from events.envelope import MAX_BODY_BYTES
from events.vocabulary import QuarantineCode


@dataclass(frozen=True, slots=True)
class Malformed:
    """The bytes of a message, and the code that the quarantine must give it."""

    body: bytes
    code: QuarantineCode


def malformed_messages(run: str) -> list[Malformed]:
    """Return the malformed messages of a session. Each contains `run`, by which the quarantine is searched."""
    data = {"exam_id": f"demo-{run}-midterm", "user_id": f"{run}-learner-1"}
    update = "exam.attempt.update-status.v1"
    return [
        Malformed(f'{{"specversion": "1.0", "id": "{run}'.encode(), QuarantineCode.NOT_JSON),
        Malformed(b"\xff\xfe" + run.encode(), QuarantineCode.NOT_JSON),
        Malformed(json.dumps([run]).encode(), QuarantineCode.NOT_CLOUDEVENT),
        Malformed(_event(run, 1, update, data, specversion="0.3"), QuarantineCode.NOT_CLOUDEVENT),
        Malformed(_event(run, 2, "exam.attempt.cancel.v1", data), QuarantineCode.UNKNOWN_TYPE),
        Malformed(_event(run, 3, update, data), QuarantineCode.INVALID_DATA),  # no to_status
        Malformed(_event(run, 4, update, {**data, "to_satus": "started"}), QuarantineCode.INVALID_DATA),
        Malformed(
            _event(run, 5, update, {**data, "to_status": "x" * MAX_BODY_BYTES}), QuarantineCode.TOO_LARGE
        ),
    ]


def _event(run: str, number: int, kind: str, data: dict[str, Any], specversion: str = "1.0") -> bytes:
    event = {
        "specversion": specversion,
        "id": f"{run}-malformed-{number}",
        "source": f"/demo/{run}",
        "type": kind,
        "data": data,
    }
    return json.dumps(event).encode()
