"""The rules once more, from docs/rules.md and without the product's code. A test compares the two."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from events.commands import (
    AttemptCreate,
    AttemptData,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CourseUpsert,
    ExamUpsert,
)
from tests.documented import CREDIT, DEFAULTS
from worker.rules.policy import Policy

ENTRY = ("created", "download_software_clicked", "ready_to_start")
BEFORE_START = ("eligible", *ENTRY)
RUNNING = ("started", "ready_to_submit")
INCOMPLETE = (*BEFORE_START, *RUNNING)
COMPLETED = (*CREDIT, "timed_out", "second_review_required")
VERDICTS = ("verified", "rejected")

Outcome = tuple[str, str | None]
"""The outcome and its code."""


@dataclass(slots=True)
class Attempt:
    """An attempt, and its history as (from_status, to_status, at, by a cascade)."""

    exam_id: str
    user_id: str
    attempt_code: str | None
    external_id: str | None
    taking_as_proctored: bool
    is_sample_attempt: bool
    created_at: datetime
    external_ids: set[str]
    status: str | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    removed_at: datetime | None = None
    credit_told: set[tuple[str, str]] = field(default_factory=set)
    history: list[tuple[str | None, str, datetime, bool]] = field(default_factory=list)

    def move(self, status: str, at: datetime, *, by_cascade: bool) -> datetime:
        """Add a step to the history. Return when it happened."""
        at = max([at, *(step[2] for step in self.history)])
        self.history.append((self.status, status, at, by_cascade))
        self.status = status
        return at

    def is_meant(self, data: AttemptData) -> bool:
        return data.attempt_code in (None, self.attempt_code) and (
            data.external_id is None or data.external_id in self.external_ids
        )


@dataclass(slots=True)
class Model:
    """What is recorded.

    Parameters:
        now: the clock that judges what times are believed.
        policies: by provider. None is the default.
    """

    now: datetime
    policies: Mapping[str | None, Policy]
    rows: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=lambda: {table: {} for table in DEFAULTS}
    )
    attempts: list[Attempt] = field(default_factory=list)
    effects: list[tuple[Any, ...]] = field(default_factory=list)
    """Pairs of a kind and what it is about, in the order in which they are owed."""
    cascades: dict[tuple[str, str], list[tuple[str, datetime]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By learner and course: the content of the exam that started a cascade, and when."""

    def handle(self, command: Command, handled_at: datetime) -> Outcome:
        """Handle a command."""
        time, data = command.time, command.data
        if time is None or time > self.now + timedelta(seconds=60):
            time = handled_at
        if not isinstance(data, AttemptCreate | AttemptData):
            return self._describe(data, time)
        if time < self.now - timedelta(days=1):
            time = handled_at
        exam = self.rows["exams"].get(data.exam_id)
        if exam is None:
            return "rejected", "exam_not_found"
        for content_id, at in self.cascades.pop((data.user_id, exam["course_id"]), []):
            self._cascade(data.user_id, exam["course_id"], content_id, at)
        if isinstance(data, AttemptCreate):
            return self._create(data, exam, time)
        return self._change(data, exam, time)

    def _describe(self, data: Any, time: datetime) -> Outcome:
        if isinstance(data, CourseUpsert):
            table, key = "courses", data.course_id
        elif isinstance(data, ExamUpsert):
            table, key = "exams", data.exam_id
        else:
            table, key = "learners", data.user_id
        row = self.rows[table].get(key, {**DEFAULTS[table], "described_at": time})
        if time < row["described_at"]:
            return "ignored", "overtaken"
        self.rows[table][key] = {**row, **data.model_dump(exclude_unset=True), "described_at": time}
        return "applied", None

    # --- attempts ----------------------------------------------------------------------------------------

    def live(self, user_id: str, exam_id: str) -> Attempt | None:
        """The learner's live attempt at an exam."""
        return next((one for one in self._live(user_id) if one.exam_id == exam_id), None)

    def _live(self, user_id: str) -> list[Attempt]:
        return [one for one in self.attempts if one.user_id == user_id and one.removed_at is None]

    def _create(self, data: AttemptCreate, exam: Mapping[str, Any], time: datetime) -> Outcome:
        if data.user_id not in self.rows["learners"]:
            return "rejected", "learner_not_found"
        if self.live(data.user_id, data.exam_id):
            return "rejected", "attempt_exists"
        if data.attempt_code is not None and data.attempt_code in {one.attempt_code for one in self.attempts}:
            return "rejected", "attempt_code_taken"
        attempt = self._begin(data.user_id, exam, time)
        attempt.attempt_code, attempt.external_id = data.attempt_code, data.external_id
        attempt.external_ids = {data.external_id} - {None}  # type: ignore[assignment]  # it takes None away
        attempt.taking_as_proctored = data.taking_as_proctored
        return "applied", None

    def _begin(
        self, user_id: str, exam: Mapping[str, Any], time: datetime, *, by_cascade: bool = False
    ) -> Attempt:
        sample = exam["is_practice_exam"]
        attempt = Attempt(exam["exam_id"], user_id, None, None, False, sample, time, set())
        attempt.move("created", time, by_cascade=by_cascade)
        self.attempts.append(attempt)
        return attempt

    def _change(self, data: AttemptData, exam: Mapping[str, Any], time: datetime) -> Outcome:
        attempt = self.live(data.user_id, data.exam_id)
        missing = "ignored" if data.if_missing == "ignore" else "rejected"
        if attempt is None:
            is_named = (data.attempt_code, data.external_id) != (None, None)
            return missing, "stale_attempt" if is_named else "attempt_not_found"
        if not attempt.is_meant(data):
            return missing, "stale_attempt"
        if data.from_statuses is not None and attempt.status not in data.from_statuses:
            return "ignored", "precondition_failed"
        if isinstance(data, AttemptUpdateStatus):
            return self._update(attempt, exam, data.to_status, time, cascades=data.cascade_effects)
        assert isinstance(data, AttemptRemove)
        self._remove(attempt, exam, time)
        return "applied", None

    def _remove(self, attempt: Attempt, exam: Mapping[str, Any], time: datetime) -> None:
        present = {(exam["course_id"], exam["content_id"])}
        for requirement in sorted(attempt.credit_told or (present if attempt.status in CREDIT else ())):
            self._owe("remove_credit_status", attempt, *requirement)
        self._owe("delete_student_attempt", attempt, exam["course_id"], exam["content_id"])
        attempt.removed_at = max(time, attempt.history[-1][2])

    def _owe(
        self, kind: str, attempt: Attempt, course_id: str, content_id: str, word: str | None = None
    ) -> None:
        number = self.attempts.index(attempt)
        self.effects.append((kind, number, attempt.exam_id, attempt.user_id, course_id, content_id, word))

    # --- update status -----------------------------------------------------------------------------------

    def _update(
        self,
        attempt: Attempt,
        exam: Mapping[str, Any],
        asked: str | None,
        time: datetime,
        *,
        cascades: bool,
        by_cascade: bool = False,
    ) -> Outcome:
        course = self.rows["courses"].get(exam["course_id"], {"provider": None})
        policy = self.policies.get(course["provider"], self.policies[None])
        current = attempt.status
        if asked not in (*INCOMPLETE, *COMPLETED):
            return "rejected", "unknown_status"
        if policy.protect_verdicts and current in VERDICTS and asked not in VERDICTS:
            return "ignored", "late_timeout" if asked == "timed_out" else "verdict_protected"
        new = self._alias(str(current), asked, policy)
        if current in COMPLETED and new in INCOMPLETE:
            return "rejected", "illegal_transition"
        if current in COMPLETED and new == "error" and policy.error_after_completion == "illegal":
            return "rejected", "illegal_transition"
        if new == current and policy.repeat_status == "ignore":
            return "unchanged", None
        self._apply(attempt, exam, new, time, policy, cascades=cascades, by_cascade=by_cascade)
        return "applied", None

    @staticmethod
    def _alias(current: str, asked: str, policy: Policy) -> str:
        if asked == "timed_out":
            is_kept = policy.allow_timed_out_state == "true" or (
                policy.allow_timed_out_state == "from_created" and current == "created"
            )
            is_kept |= policy.timed_out_before_start == "timed_out" and current in BEFORE_START
            return asked if is_kept else "submitted"
        if policy.reenter_running == "submitted" and current in RUNNING and asked in ENTRY:
            return "submitted"
        return asked

    def _apply(
        self,
        attempt: Attempt,
        exam: Mapping[str, Any],
        new: str,
        time: datetime,
        policy: Policy,
        *,
        cascades: bool,
        by_cascade: bool,
    ) -> None:
        at = attempt.move(new, time, by_cascade=by_cascade)
        if new == "started" and attempt.started_at is None:
            attempt.started_at = at
        if new == "submitted":
            attempt.completed_at = at
        is_left_alone = exam["is_practice_exam"] and not policy.cascade_from_practice
        cascades = cascades and new in policy.cascade_on and not is_left_alone
        if cascades and new == "declined":
            attempt.taking_as_proctored, attempt.external_id = False, None
        name = (exam["course_id"], exam["content_id"])
        if new in policy.credit_on:
            word = str(policy.credit_declined) if new == "declined" else CREDIT[new]
            self._owe("set_credit_status", attempt, *name, word)
            attempt.credit_told.add(name)
        if cascades:
            self._owe("cascade_decline", attempt, *name)
            self.cascades[attempt.user_id, exam["course_id"]].append((exam["content_id"], at))
        is_mailed = attempt.taking_as_proctored and not attempt.is_sample_attempt and not by_cascade
        if is_mailed and new in policy.email_on:
            self._owe("send_status_email", attempt, *name, new)

    def _cascade(self, user_id: str, course_id: str, content_id: str, at: datetime) -> None:
        completed = [one for one in self._live(user_id) if one.status in COMPLETED]
        done = {(exam["course_id"], exam["content_id"]) for exam in map(self._exam_of, completed)}
        done = done.union(*(one.credit_told for one in completed))
        for exam_id, exam in sorted(self.rows["exams"].items()):
            is_sibling = exam["course_id"] == course_id and exam["content_id"] != content_id
            declines = exam["is_active"] and exam["is_proctored"] and not exam["is_practice_exam"]
            if is_sibling and declines and (course_id, exam["content_id"]) not in done:
                attempt = self.live(user_id, exam_id) or self._begin(user_id, exam, at, by_cascade=True)
                self._update(attempt, exam, "declined", at, cascades=False, by_cascade=True)

    def _exam_of(self, attempt: Attempt) -> Mapping[str, Any]:
        return self.rows["exams"][attempt.exam_id]
