"""The command types: one entry for each, with how its commands are applied and what they look at.

To add a type, write its model in `events/commands.py`, a method of `Fold` and an entry here. A model without an
entry is refused when this module is imported, and so is an entry whose model is no command.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from db.ids import Receipt
from db.inbox import Handled
from events.commands import (
    COMMAND_TYPES,
    AttemptCreate,
    AttemptRemove,
    AttemptUpdateStatus,
    Command,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
)
from worker.commands.fold import Fold
from worker.commands.unit_of_work import Cause

Data = TypeVar("Data", bound=CommandData)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the commands of a batch look at, and so what is loaded before they are applied.

    Parameters:
        user_ids: learners whose attempts they look at. A command belongs to one of them, so they are locked.
        exam_ids: exams. All other exams of their courses are loaded, too.
        course_ids: courses whose exams another command of the batch may look at.
    """

    user_ids: set[str] = field(default_factory=set)
    exam_ids: set[str] = field(default_factory=set)
    course_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandType(Generic[Data]):
    """How the commands of one type are handled. Every field is required.

    Parameters:
        model: the type of the command's data.
        apply: the method of `Fold` that applies one.
        add_needs: adds what one looks at to what its batch needs.
    """

    model: type[Data]
    apply: Callable[[Fold, Data, Cause], Handled]
    add_needs: Callable[[Data, Needs], None]


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


def _nothing(data: CommandData, needs: Needs) -> None:
    """An upsert looks at nothing: it replaces what is there."""


def _course(data: ExamUpsert, needs: Needs) -> None:
    needs.course_ids.add(data.course_id)


def _attempt(data: AttemptCreate | AttemptUpdateStatus | AttemptRemove, needs: Needs) -> None:
    needs.user_ids.add(data.user_id)
    needs.exam_ids.add(data.exam_id)


_TYPES = table(
    (
        CommandType(model=CourseUpsert, apply=Fold.upsert_course, add_needs=_nothing),
        CommandType(model=ExamUpsert, apply=Fold.upsert_exam, add_needs=_course),
        CommandType(model=LearnerUpsert, apply=Fold.upsert_learner, add_needs=_nothing),
        CommandType(model=AttemptCreate, apply=Fold.create, add_needs=_attempt),
        CommandType(model=AttemptUpdateStatus, apply=Fold.update, add_needs=_attempt),
        CommandType(model=AttemptRemove, apply=Fold.remove, add_needs=_attempt),
    ),
    COMMAND_TYPES.values(),
)


def apply(fold: Fold, command: Command, receipt: Receipt) -> Handled:
    """Apply one command to the unit of work of `fold`.

    Parameters:
        receipt: when the command was taken, and the ids of what follows from it.
    """
    cause = Cause(command.source, command.id, receipt.at, receipt.ids())
    return _TYPES[type(command.data)].apply(fold, command.data, cause)


def needs_of(commands: Iterable[Command]) -> Needs:
    """What the commands of a batch look at, taken together."""
    needs = Needs()
    for command in commands:
        _TYPES[type(command.data)].add_needs(command.data, needs)
    return needs
