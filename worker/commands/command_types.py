"""The command types: one entry for each, with how its commands are applied and what they look at.

To add a type, write its model in `events/commands.py`, a method of `Fold` and an entry here. A model without an
entry is refused when this module is imported, and so is an entry whose model is no command.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from db.batch import Needs
from db.ids import Receipt
from db.inbox import Handled
from events.commands import (
    COMMAND_TYPES,
    AttemptCreate,
    AttemptData,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from worker.commands.fold import Fold
from worker.commands.records import Cause
from worker.rules.moments import Clock

Data = TypeVar("Data", bound=CommandData)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandType(Generic[Data]):
    """How the commands of one type are handled. Every field is required.

    Parameters:
        model: the type of the command's data.
        apply: the method of `Fold` that applies one.
        add_needs: adds what one looks at to what its batch needs.
        moment: when what it tells of happened, from its time and the moment of handling.
    """

    model: type[Data]
    apply: Callable[[Fold, Data, Cause], Handled]
    add_needs: Callable[[Data, Needs], None]
    moment: Callable[[Clock, datetime | None, datetime], datetime]


def table(
    entries: Collection[CommandType[Any]], models: Collection[type[CommandData]]
) -> Mapping[type[CommandData], CommandType[Any]]:
    """The entries by their models.

    Raises:
        TypeError: a model has no entry or two, or an entry's model is no command.
    """
    for model in models:
        if [entry.model for entry in entries].count(model) != 1:
            raise TypeError(f"command type {model.type}: needs one entry in worker/commands/command_types.py")
    for entry in entries:
        if entry.model not in models:
            raise TypeError(f"{entry.model.__name__}: add it to COMMAND_TYPES in events/commands.py")
    return {entry.model: entry for entry in entries}


def _course(data: CourseUpsert, needs: Needs) -> None:
    needs.courses.add(data.course_id)


def _exam(data: ExamUpsert, needs: Needs) -> None:
    needs.exams.add(data.exam_id)
    needs.course_ids.add(data.course_id)


def _learner(data: LearnerUpsert, needs: Needs) -> None:
    needs.learners.add(data.user_id)


def _attempt(data: AttemptCreate | AttemptData, needs: Needs) -> None:
    needs.user_ids.add(data.user_id)
    needs.exam_ids.add(data.exam_id)


def _removal(data: AttemptRemove, needs: Needs) -> None:
    _attempt(data, needs)
    if data.requested_by is not None:
        needs.requesters.add(data.requested_by)


def _new_attempt(data: AttemptCreate, needs: Needs) -> None:
    _attempt(data, needs)
    if data.attempt_code is not None:
        needs.attempt_codes.add(data.attempt_code)


_TYPES = table(
    (
        CommandType(
            model=CourseUpsert, apply=Fold.upsert_course, add_needs=_course, moment=Clock.of_description
        ),
        CommandType(model=ExamUpsert, apply=Fold.upsert_exam, add_needs=_exam, moment=Clock.of_description),
        CommandType(
            model=LearnerUpsert, apply=Fold.upsert_learner, add_needs=_learner, moment=Clock.of_description
        ),
        CommandType(model=AttemptCreate, apply=Fold.create, add_needs=_new_attempt, moment=Clock.of_act),
        CommandType(model=AttemptUpdateStatus, apply=Fold.update, add_needs=_attempt, moment=Clock.of_act),
        CommandType(model=AttemptRemove, apply=Fold.remove, add_needs=_removal, moment=Clock.of_act),
    ),
    COMMAND_TYPES.values(),
)


def apply(fold: Fold, command: Command, receipt: Receipt, clock: Clock) -> Handled:
    """Apply one command to the unit of work of `fold`.

    Parameters:
        receipt: when the command was taken, and the ids of what follows from it.
        clock: judges the command's time.
    """
    kind = _TYPES[type(command.data)]
    at = kind.moment(clock, command.time, receipt.at)
    cause = Cause(command.source, command.id, at, receipt.at, receipt.ids(), traceparent=command.traceparent)
    handled = kind.apply(fold, command.data, cause)
    fold.unit_of_work.telling.not_applied(command, handled, cause)
    return handled


def needs_of(commands: Iterable[Command]) -> Needs:
    """What the commands of a batch look at, taken together."""
    needs = Needs()
    for command in commands:
        _TYPES[type(command.data)].add_needs(command.data, needs)
    return needs
