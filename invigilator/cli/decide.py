"""`invigilator decide`: answers each line of input with what the rules decide. It changes nothing."""

import json
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import click

from events.times import parse_time
from events.vocabulary import Status
from worker.rules.decisions import decide_update
from worker.rules.policy import PRESETS, Policy
from worker.rules.policy_settings import PolicyError, policy_from
from worker.rules.values import Attempt, Exam, Precondition

MAX_ERROR_CHARS = 300  # an error may name a key, which the sender chose
BASE = PRESETS["provider"]

CASE = (
    "from_status",
    "to_status",
    "taking_as_proctored",
    "is_sample_attempt",
    "started_at",
    "cascade_effects",
    "from_statuses",
    "is_practice_exam",
    "policy",
)
ANSWER = (
    "outcome",
    "code",
    "status",
    "credit",
    "cascade",
    "email",
    "set_started_at",
    "set_completed_at",
    "clear_proctoring",
)

_STATUSES = {status.value: status for status in Status}


class CaseError(ValueError):
    """A line is no case. The message says what is wrong with it."""


@click.command("decide")
@click.option("--json", is_flag=True, expose_value=False, help="Print JSON, which it does anyway.")
def decide() -> None:
    """Answer each line of standard input with what the rules decide.

    A line is JSON, such as {"from_status": "started", "to_status": "submitted", "taking_as_proctored": true,
    "is_sample_attempt": false, "started_at": null, "cascade_effects": true, "policy": {"preset": "platform"}}.
    """
    for line in sys.stdin.buffer:
        sys.stdout.write(answer(line) + "\n")
        sys.stdout.flush()  # a caller may wait for this answer before it sends the next line


def answer(line: bytes) -> str:
    """Return the answer to one line as one line of JSON: a decision, or what is wrong with the line.

    Example:
        >>> case = b'{"from_status": "started", "to_status": "verifed", "taking_as_proctored": true, '
        >>> import json
        >>> json.loads(answer(case + b'"is_sample_attempt": false}'))["code"]
        'unknown_status'
    """
    try:
        case = _read(line)
        decision = decide_update(
            _exam(case),
            _attempt(case),
            _to_status(case),
            _policy(case.get("policy", {})),
            cascade_effects=_flag(case, "cascade_effects", True),
            precondition=Precondition(from_statuses=_from_statuses(case.get("from_statuses"))),
        )
    except CaseError as error:
        return json.dumps({"error": str(error)[:MAX_ERROR_CHARS]})
    return json.dumps({name: getattr(decision, name) for name in ANSWER})


def _read(line: bytes) -> dict[str, Any]:
    if not line.strip():
        raise CaseError("the line is empty")
    try:
        case = _decoder.decode(line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise CaseError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise CaseError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise CaseError("not JSON: nested too deeply") from None
    except ValueError as error:
        # NaN and the like, and integers of thousands of digits, which Python refuses to read.
        raise CaseError(f"not JSON: {error}") from None
    if not isinstance(case, dict):
        raise CaseError("must be a JSON object")
    unknown = case.keys() - set(CASE)
    if unknown:
        raise CaseError(f"{min(unknown)}: is not a known key; they are {', '.join(CASE)}")
    return case


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def _exam(case: dict[str, Any]) -> Exam:
    # The decision on an attempt depends on no other field of its exam.
    return Exam(
        exam_id="",
        course_id="",
        content_id="",
        is_proctored=True,
        is_practice_exam=_flag(case, "is_practice_exam", False),
        is_active=True,
    )


def _attempt(case: dict[str, Any]) -> Attempt:
    return Attempt(
        _status("from_status:", case.get("from_status")),
        taking_as_proctored=_flag(case, "taking_as_proctored"),
        is_sample_attempt=_flag(case, "is_sample_attempt"),
        started_at=_time(case.get("started_at")),
    )


def _to_status(case: dict[str, Any]) -> str | None:
    to_status = case.get("to_status", 0)
    if to_status is not None and not isinstance(to_status, str):
        raise CaseError("to_status: must be a string or null")
    return to_status


def _from_statuses(names: Any) -> list[Status] | None:
    if names is None:
        return None
    if not isinstance(names, list):
        raise CaseError("from_statuses: must be a list of statuses or null")
    return [_status("from_statuses: each", name) for name in names]


def _status(subject: str, name: Any) -> Status:
    status = _STATUSES.get(name) if isinstance(name, str) else None
    if status is None:
        raise CaseError(f"{subject} must be one of {', '.join(_STATUSES)}")
    return status


def _flag(case: dict[str, Any], key: str, default: bool | None = None) -> bool:
    flag = case.get(key, default)
    if not isinstance(flag, bool):
        raise CaseError(f"{key}: must be true or false")
    return flag


def _time(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_time(text if isinstance(text, str) else "")
    except ValueError:
        raise CaseError("started_at: must be a time such as 2026-03-01T09:00:00Z, or null") from None


def _policy(settings: Any) -> Policy:
    if not isinstance(settings, dict):
        raise CaseError("policy: must be an object")
    return _policy_of(json.dumps(settings)) if settings else BASE


@lru_cache(maxsize=1000)
def _policy_of(text: str) -> Policy:
    # Thousands of cases share a few policies.
    try:
        return policy_from(json.loads(text), BASE)
    except PolicyError as error:
        raise CaseError(f"policy: {error}") from None
