"""`/v1/effects`: looks at effects and at why they fail, retries and cancels them, pauses kinds."""

from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)
from sqlalchemy import Engine

from db import causes, effect_filters
from db.effect_filters import Filter, UnknownEffectError
from db.states import EffectState
from events.fields import Key, Text
from invigilator.acts import effects as acts
from invigilator.acts import pauses
from invigilator.acts.actor import Action, Actor, Via
from invigilator.acts.effects import Done, UnknownFilterError, WrongFilterError
from invigilator.acts.moments import moment
from invigilator.acts.pauses import PauseError
from invigilator.acts.transactions import acting
from invigilator.web.access import Access
from invigilator.web.bodies import BoundedRoute
from invigilator.web.documents import Causes, EffectPage, EffectsDone, PausedKind
from invigilator.web.openapi import problems
from invigilator.web.problems import invalid_query, not_found
from invigilator.web.reading import DEFAULT_PAGE, Limit, reading, reading_router
from invigilator.web.tokens import ANYBODY, Caller, Scope
from worker.kinds import EffectKind

MAX_EFFECTS = 5_000
"""How many effects one call looks at, so that it answers within seconds. `next` goes on."""
MAX_NAMED = 500
_KINDS = [kind.value for kind in EffectKind]


def _known(kind: str) -> str:
    if kind not in _KINDS:
        raise ValueError(f"must be one of {', '.join(_KINDS)}")
    return kind


def _moment(value: object) -> datetime:
    # pydantic would take a number for seconds since 1970.
    if isinstance(value, str):
        with suppress(ValueError):
            return moment(value)
    raise ValueError("must be a time with a time zone, such as 2026-03-01T09:00:00Z")


Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]
Kind = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(_KINDS)})]
Effects = Annotated[list[UUID], Field(min_length=1, max_length=MAX_NAMED)]


class EffectFilter(BaseModel):
    """Which effects are meant. An effect must fit all members that are set."""

    # A member that is misspelt must not make the filter mean more.
    model_config = ConfigDict(extra="forbid")

    states: Annotated[list[EffectState], Field(max_length=len(EffectState))] = []
    kinds: Annotated[list[Kind], Field(max_length=len(_KINDS))] = []
    user_id: Key | None = None
    course_id: Key | None = None
    exam_id: Key | None = None
    attempt: Key | None = None
    cause: Key | None = None
    error: Key | None = None
    since: Moment | None = None
    until: Moment | None = None
    subscriber: Key | None = None

    @model_validator(mode="after")
    def _is_no_blank(self) -> Self:
        self.wanted()
        return self

    def wanted(self) -> Filter:
        """Return the filter. Raises BlankFilterError for a blank text."""
        chosen = {name: getattr(self, name) for name in EffectFilter.model_fields}
        words = {"states": tuple(state.value for state in self.states), "kinds": tuple(self.kinds)}
        return Filter(**{**chosen, **words})


class EffectQuery(EffectFilter):
    """A page of the effects that are meant."""

    limit: Limit = DEFAULT_PAGE
    cursor: UUID | None = None


class EffectsAct(BaseModel):
    """What is to be retried or cancelled, and why: either named effects, or a filter."""

    model_config = ConfigDict(extra="forbid")

    effects: Effects | None = None
    filter: EffectFilter | None = None
    after: UUID | None = None
    reason: Text | None = None
    dry_run: StrictBool = False


class Pausing(BaseModel):
    """Which kind is to be paused, until when, and why."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    until: Moment | None = None
    reason: Text | None = None


class Resuming(BaseModel):
    """Which kind is to be resumed, and why."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    reason: Text | None = None


def routes(engine: Engine, access: Access) -> APIRouter:
    """Return the routes of effects."""
    router = APIRouter()
    router.include_router(_looking(engine, access))
    router.include_router(_acting(engine, access))
    return router


def _looking(engine: Engine, access: Access) -> APIRouter:
    router = reading_router(access)

    @router.get("/v1/effects", response_model=EffectPage)
    def effects(query: Annotated[EffectQuery, Query()]) -> Any:
        """Effects, newest first. `states` and `kinds` may be repeated. `next` is the `cursor` of the next page."""
        with reading(engine) as connection:
            try:
                acts.check(connection, query.wanted())
                page = effect_filters.page(connection, query.wanted(), after=query.cursor, limit=query.limit)
            except UnknownFilterError as error:
                raise invalid_query(f"{error.member}: {error}") from None
            except UnknownEffectError as error:
                raise invalid_query(f"cursor: {error}") from None
            return {"effects": list(acts.shown(connection, page.effects)), "next": page.next}

    @router.get("/v1/effects/causes", response_model=Causes)
    def why() -> Any:
        """Why effects fail, or are tried again: one entry for each cause and state, the most frequent first."""
        with reading(engine) as connection:
            return {"causes": causes.failing(connection)}

    return router


def _acting(engine: Engine, access: Access) -> APIRouter:
    router = APIRouter(route_class=BoundedRoute, responses=problems(400, 401, 403, 408, 413, 429, 503))
    operator = Depends(access.needs(Scope.OPERATE))

    @router.post("/v1/effects/retry", response_model=EffectsDone, response_model_exclude_unset=True)
    def retry(request: Request, asked: EffectsAct, caller: Annotated[Caller, operator]) -> Any:
        """Make failed or cancelled effects pending again, due now. Without `states` a filter means failed ones.

        One call looks at 5,000 effects at most. `next` is the `after` of the call that goes on, null when none is
        left.
        """
        return _act(engine, _actor(request, caller), Action.RETRY, "retried", asked)

    @router.post("/v1/effects/cancel", response_model=EffectsDone, response_model_exclude_unset=True)
    def cancel(request: Request, asked: EffectsAct, caller: Annotated[Caller, operator]) -> Any:
        """Cancel effects that are pending or failed. Otherwise as retrying them."""
        return _act(engine, _actor(request, caller), Action.CANCEL, "cancelled", asked)

    @router.post("/v1/effects/pause", response_model=PausedKind)
    def pause(request: Request, asked: Pausing, caller: Annotated[Caller, operator]) -> Any:
        """Have nobody carry out effects of a kind, until then or until it is resumed."""
        with acting(engine) as connection:
            kind = EffectKind(asked.kind)
            try:
                return pauses.pause(connection, _actor(request, caller), kind, asked.until, asked.reason)
            except PauseError as error:
                raise invalid_query(f"until: {error}") from None

    @router.post("/v1/effects/resume", response_model=PausedKind, responses=problems(HTTPStatus.NOT_FOUND))
    def resume(request: Request, asked: Resuming, caller: Annotated[Caller, operator]) -> Any:
        """End the pause of a kind. The answer is the pause that was on."""
        with acting(engine) as connection:
            try:
                return pauses.resume(
                    connection, _actor(request, caller), EffectKind(asked.kind), asked.reason
                )
            except PauseError as error:
                raise not_found(str(error)) from None

    return router


def _actor(request: Request, caller: Caller) -> Actor:
    # Without a file of tokens nobody has proved anything.
    origin = None if request.client is None else request.client.host
    return Actor(caller.name, is_claimed=caller is ANYBODY, via=Via.API, origin=origin)


def _act(engine: Engine, actor: Actor, action: Action, verb: str, asked: EffectsAct) -> dict[str, Any]:
    try:
        if asked.effects is not None and asked.filter is None and not asked.dry_run:
            done = acts.change(engine, actor, action, asked.effects, asked.reason)
        elif asked.filter is not None and asked.effects is None:
            if asked.dry_run:
                return _counted(engine, action, asked.filter)
            done = _bulk(engine, actor, action, asked, asked.filter.wanted())
        else:
            raise invalid_query("name either `effects` or a `filter`; `dry_run` goes with a filter")
    except (WrongFilterError, UnknownEffectError) as error:
        raise invalid_query(str(error)) from None
    refused = [{"id": effect_id, "reason": reason} for effect_id, reason in done.refused.items()]
    return {"act_id": done.act_id, verb: done.number, "refused": refused, "next": done.next}


def _counted(engine: Engine, action: Action, wanted: EffectFilter) -> dict[str, Any]:
    with reading(engine) as connection:
        return {f"would_{action}": acts.preview(connection, action, wanted.wanted()).number}


def _bulk(engine: Engine, actor: Actor, action: Action, asked: EffectsAct, wanted: Filter) -> Done:
    act = acts.start(engine, actor, action, wanted, asked.reason, most=MAX_EFFECTS, after=asked.after)
    return acts.run(act)
