"""Which effects are meant: one filter for listing, counting, retrying and cancelling them.

Pages go by `created_at`, which the indexes on the state and on the kind hold, and then by `sequence`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    any_,
    cast,
    func,
    or_,
    select,
    tuple_,
    union_all,
)

from db.lookups import EFFECT_COLUMNS, Row
from db.models import Attempt, Effect, Exam
from db.states import EffectState
from db.streaming import stream
from db.texts import storable
from events.errors import InvigilatorError

FAILING = (EffectState.PENDING, EffectState.RUNNING, EffectState.FAILED)
"""The states of an effect whose last try may have failed, and which is still owed or needs a person."""

LOOKED_AT = 10_000
"""In how many effects a page looks for a text of an error before it ends without being full."""

_TIMES = ("since", "until")
_WORDS = ("states", "kinds")


class UnknownEffectError(InvigilatorError):
    """The effect after which a page was to begin is not there."""

    code = "unknown_effect"


class BlankFilterError(InvigilatorError, ValueError):
    """A member of a filter is blank."""

    code = "blank_filter"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which effects are meant. An effect must fit all members that are set.

    Parameters:
        states: it is in one of them. Empty for any.
        kinds: it is of one of them. Empty for any.
        user_id: of the learner.
        course_id: of the exam's course.
        exam_id: of the exam.
        attempt: the code of the attempt. It is the attempt's id where the LMS has chosen none.
        cause: why the last try failed.
        error: a text that the last error contains, upper and lower case told apart. Without `states` it is looked
            for among the effects that are pending, running or failed.
        since: it came to be owed at this time or later.
        until: it came to be owed before this time.
        subscriber: to whom it delivers an event, such as `webhook.acme`.

    Raises:
        BlankFilterError: a text is blank.
        ValueError: a text holds what PostgreSQL cannot store.

    Example:
        >>> Filter(states=("failed",), error="403").as_json()
        {'states': ['failed'], 'error': '403'}
    """

    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    user_id: str | None = None
    course_id: str | None = None
    exam_id: str | None = None
    attempt: str | None = None
    cause: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    subscriber: str | None = None

    def __post_init__(self) -> None:
        """Refuse a blank text, which would mean more than its writer meant, and one that nothing can have."""
        for name, value in asdict(self).items():
            if isinstance(value, str) and not value.strip():
                raise BlankFilterError(f"{name.removesuffix('_id')} is blank: name one, or leave it out")
            if any(one != storable(one, len(one)) for one in _texts(value)):
                raise ValueError(f"{name} is no text that anything could have here")

    @property
    def is_empty(self) -> bool:
        """Whether every effect is meant."""
        return self == Filter()

    def as_json(self) -> dict[str, Any]:
        """Return the members that are set, as JSON values."""
        named = ((name, value) for name, value in asdict(self).items() if value not in (None, ()))
        return {name: _plain(value) for name, value in named}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Filter":
        """Return the filter that `as_json` has written.

        Raises:
            ValueError, TypeError: it has not written this.
        """
        if unknown := document.keys() - {field.name for field in fields(cls)}:
            raise ValueError(f"{min(unknown)} is no member of a filter")
        return cls(**{name: _read(name, value) for name, value in document.items()})


def _texts(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return (value,)
    return value if isinstance(value, tuple) else ()


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _read(name: str, value: Any) -> Any:
    texts = value if name in _WORDS else [value]
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise TypeError(f"{name} is no {'list of texts' if name in _WORDS else 'text'}")
    if name in _TIMES:
        return datetime.fromisoformat(value)
    return tuple(value) if name in _WORDS else value


@dataclass(frozen=True, slots=True)
class Page:
    """Some effects.

    Parameters:
        effects: newest first.
        next: the effect after which the next page begins. None on the last page.
    """

    effects: Sequence[Row]
    next: UUID | None


_CODE: ColumnElement[str] = func.coalesce(Attempt.attempt_code, cast(Attempt.id, Text))
_SHOWN = (
    *EFFECT_COLUMNS,
    func.coalesce(Effect.user_id, Attempt.user_id).label("user_id"),
    _CODE.label("attempt_code"),
    Attempt.exam_id,
    Effect.source,
    Effect.command_id,
    Effect.subscriber,
    Effect.payload,
)
_KEY: ColumnElement[Any] = tuple_(Effect.created_at, Effect.sequence)
_NEWEST_FIRST = (Effect.created_at.desc(), Effect.sequence.desc())


def count(connection: Connection, wanted: Filter) -> int:
    """Return how many effects fit."""
    return connection.scalar(select(func.count()).select_from(Effect).where(*conditions(wanted))) or 0


def count_up_to(connection: Connection, wanted: Filter, most: int) -> int:
    """Return how many effects fit, as `count` does, but look for no more than one above `most`."""
    # In the order of the indexes, so that PostgreSQL goes along one of them until it has found enough.
    some = (
        select(Effect.created_at)
        .where(*conditions(wanted))
        .order_by(Effect.created_at.desc())
        .limit(most + 1)
    )
    return connection.scalar(select(func.count()).select_from(some.subquery())) or 0


def listed(
    connection: Connection, wanted: Filter, *, after: UUID | None = None, limit: int | None = None
) -> Iterable[Row]:
    """Return the effects that fit, newest first, as they come from the database.

    Parameters:
        after: an effect. Those after it are wanted, which are older.
        limit: how many at most. None for all.

    Raises:
        UnknownEffectError: there is no effect `after`.
    """
    statement = _shown([*conditions(wanted), *_behind(connection, after)], limit)
    return (row._asdict() for row in stream(connection, statement))


def _shown(fitting: Sequence[ColumnElement[bool]], limit: int | None) -> Select[*tuple[Any, ...]]:
    return (
        select(*_SHOWN)
        .outerjoin(Attempt, Attempt.id == Effect.attempt_id)
        .where(*fitting)
        .order_by(*_NEWEST_FIRST)
        .limit(limit)
    )


def _behind(connection: Connection, after: UUID | None) -> list[ColumnElement[bool]]:
    """The condition that an effect comes after another one in a list."""
    if after is None:
        return []
    at, sequence = _place(connection, after)
    # The indexes have the first column only.
    return [Effect.created_at <= at, (at, sequence) > _KEY]


def page(connection: Connection, wanted: Filter, *, after: UUID | None = None, limit: int) -> Page:
    """Return a page of the effects that fit, newest first. Raises what `listed` raises.

    With `error` it may have fewer effects than `limit`, or none, and still not be the last one: no index finds a
    part of a text, so it ends after `LOOKED_AT` effects that fit everything else.
    """
    if wanted.error is not None:
        return _page_by_error(connection, wanted, wanted.error, after, limit)
    found = _rows(connection, [*conditions(wanted), *_behind(connection, after)], limit + 1)
    rows = found[:limit]
    return Page(rows, rows[-1]["id"] if len(found) > limit else None)


def _rows(connection: Connection, fitting: Sequence[ColumnElement[bool]], limit: int) -> list[Row]:
    # Without a server's cursor. For a cursor PostgreSQL plans to have the first rows soon, and goes through the
    # index of all effects, from the newest on, until it has met those of a learner.
    return [row._asdict() for row in connection.execute(_shown(fitting, limit))]


def _page_by_error(
    connection: Connection, wanted: Filter, error: str, after: UUID | None, limit: int
) -> Page:
    found = connection.execute(_fitting(wanted, error, _behind(connection, after), limit + 1)).all()
    fitting = [row.id for row in found if row.fits]
    rows = _rows(connection, [Effect.id.in_(fitting[:limit])], limit)
    if len(fitting) > limit:
        return Page(rows, fitting[limit - 1])
    return Page(rows, next((row.id for row in found if row.place == LOOKED_AT), None))


def _fitting(
    wanted: Filter, error: str, behind: Sequence[ColumnElement[bool]], limit: int
) -> Select[UUID, bool, int]:
    """Select the first effects whose error fits, and the last effect that is looked at."""
    # Each state has an index in the order of the page. For all states at once PostgreSQL may go through the index
    # of all effects, from the newest on.
    others = conditions(replace(wanted, states=(), error=None))
    in_a_state = (
        select(Effect.id, Effect.last_error, Effect.created_at, Effect.sequence)
        .where(Effect.state == state, *others, *behind)
        .order_by(*_NEWEST_FIRST)
        .limit(LOOKED_AT)
        for state in _states(wanted)
    )
    looked_at = union_all(*in_a_state).subquery()
    numbered = select(
        looked_at.c.id,
        looked_at.c.last_error.contains(error, autoescape=True).label("fits"),
        func.row_number()
        .over(order_by=(looked_at.c.created_at.desc(), looked_at.c.sequence.desc()))
        .label("place"),
    ).subquery()
    return (
        select(numbered.c.id, numbered.c.fits, numbered.c.place)
        .where(numbered.c.place <= LOOKED_AT, or_(numbered.c.fits, numbered.c.place == LOOKED_AT))
        .order_by(numbered.c.place)
        .limit(limit + 1)
    )


def ids(
    connection: Connection, wanted: Filter, *, after: UUID | None = None, limit: int | None = None
) -> list[UUID]:
    """Return the ids of effects that fit, oldest first.

    Parameters:
        after: an effect. Those after it are wanted, which are newer.
        limit: how many at most. None for all.

    Raises:
        UnknownEffectError: there is no effect `after`.
    """
    statement = (
        select(Effect.id).where(*conditions(wanted)).order_by(Effect.created_at, Effect.sequence).limit(limit)
    )
    if after is not None:
        at, sequence = _place(connection, after)
        statement = statement.where(Effect.created_at >= at, (at, sequence) < _KEY)
    return list(connection.scalars(statement))


def _place(connection: Connection, effect_id: UUID) -> tuple[datetime, int]:
    row = connection.execute(
        select(Effect.created_at, Effect.sequence).where(Effect.id == effect_id)
    ).one_or_none()
    if row is None:
        raise UnknownEffectError(f"there is no effect {effect_id}; begin again without it")
    return row.created_at, row.sequence


def conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    """Return what an effect must fulfil to fit."""
    states = _states(wanted)
    chosen: list[ColumnElement[bool] | None] = [
        Effect.state.in_(states) if states else None,
        Effect.kind.in_(wanted.kinds) if wanted.kinds else None,
        _of_attempts(wanted),
        None if wanted.cause is None else Effect.cause == wanted.cause,
        None if wanted.error is None else Effect.last_error.contains(wanted.error, autoescape=True),
        None if wanted.since is None else Effect.created_at >= wanted.since,
        None if wanted.until is None else Effect.created_at < wanted.until,
        None if wanted.subscriber is None else Effect.subscriber == wanted.subscriber,
    ]
    return [condition for condition in chosen if condition is not None]


def _states(wanted: Filter) -> Sequence[str]:
    """The states that are meant. Empty for any."""
    return wanted.states or (FAILING if wanted.error is not None else ())


def _of_attempts(wanted: Filter) -> ColumnElement[bool] | None:
    """The condition on the attempt, of which the learner's attempts are a part."""
    code = _CODE
    conditions: list[ColumnElement[bool] | None] = [
        None if wanted.attempt is None else code == wanted.attempt,
        None if wanted.exam_id is None else Attempt.exam_id == wanted.exam_id,
        None if wanted.course_id is None else Attempt.exam_id.in_(_exams(wanted.course_id)),
        None if wanted.user_id is None else Attempt.user_id == wanted.user_id,
    ]
    chosen = [condition for condition in conditions if condition is not None]
    if not chosen:
        return None
    # An array rather than a join: PostgreSQL expects few of its members, so it looks the effects up by attempt.
    # For a join it may go through all effects from the newest on, looking for those of an exam.
    found = Effect.attempt_id == any_(func.array(select(Attempt.id).where(*chosen).scalar_subquery()))
    if wanted.user_id is None or len(chosen) > 1:
        return found
    return or_(found, and_(Effect.attempt_id.is_(None), Effect.user_id == wanted.user_id))


def _exams(course_id: str) -> Select[str]:
    return select(Exam.exam_id).where(Exam.course_id == course_id)
