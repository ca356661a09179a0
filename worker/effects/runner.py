"""One try of an effect: claim it, run its action, record the result."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum, auto
from traceback import format_tb
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from db import causes, deliveries, effects, standing
from db.connect import looking
from db.deliveries import Owed
from db.effects import Claim, RecordedTry, TryEnd, Wanted
from db.errors import Failure, brief, classify, describe
from db.states import EffectState, TryResult
from worker.effects import answers, circuit, reporting, spans
from worker.effects.action import Action, Recorded, Run, Tools
from worker.effects.action_table import ACTIONS
from worker.effects.answers import About, Answer
from worker.effects.circuit import Change
from worker.effects.coalescer import Coalescer, one_is_to_blame
from worker.effects.slots import FREE, Slot
from worker.errors import Crowded, Gone, Permanent, ServiceError, Transient, TryAgainError, TryFailedError
from worker.kinds import QUEUES, EffectKind, Service
from worker.lms.connect import Services
from worker.lms.ports import Deadline
from worker.logs import get_logger
from worker.rules.causes import Cause, find_cause
from worker.rules.retry import delay_before_retry

logger = get_logger(__name__)

RECORD_PAUSE_S = 2.0
"""The longest pause, in seconds, before the database that is away is asked again to claim or to record."""
FIRST_PAUSE_S = 1.0
"""The longest first pause, in seconds."""
BUSY_S = 1.0
"""Seconds for which an effect is put off if every slot of its service is taken."""
NEVER_REPORTED = "its worker never reported back"
MANY_CAUSES = 1_000
"""A process that remembers so many causes as stored begins anew, so that its memory has a bound."""
LOST_TRIES = 3
"""After so many lost tries it is most likely the effect that ends its workers."""

Item = TypeVar("Item")
Done = TypeVar("Done")
Note = Callable[[Connection, Claim, RecordedTry], Change | None]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a try, and what it does to the circuit of its service."""

    claim: Claim
    end: TryEnd
    note: Note
    cause: Cause | None = None


class Passed(Enum):
    """Stands for an effect that was passed over: it is not due, or taken, or another transaction has locked it."""

    OVER = auto()


class Runner:
    """Runs effects. Safe to share between threads, whose claims and results share transactions.

    The steps of `run` and the coalescers are public, because tests wait on them and crash points name them.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.owed = Coalescer(self.owed_together, isolate=one_is_to_blame)
        self.claims = Coalescer(self.claim_together, isolate=one_is_to_blame)
        self.actions: Mapping[str, Action] = {kind: make() for kind, make in ACTIONS.items()}
        self.results = Coalescer(self.record_together, isolate=one_is_to_blame)
        # Recording is tried for as long as nobody else may claim the effect. A failover takes less.
        self._recording = _Patience(tools.lease_s, _may_be_recorded_later)
        # Claiming is tried for a while, too, so that offers made before a failover are still good after it.
        self._claiming = _Patience(tools.lease_s / 4, _is_away)
        self._report = reporting.Reporter()
        self._only_logged = _only_logged(tools.services)
        self._known_causes: frozenset[Cause] = frozenset()

    def run(self, effect_id: UUID, kind: str) -> Answer:
        """Run an effect once, if it is due, nobody else has it, and its service may be called.

        Calling this again for the same effect is harmless.

        Parameters:
            kind: what the caller takes the effect for. An effect of another kind is left alone.

        Returns:
            what was done, or why there was nothing to do.

        Raises:
            TryAgainError: the try or the database failed, and the relay will offer the effect again.
            TryFailedError: the effect has failed for good, and that is recorded.
        """
        try:
            owed = self._owed(effect_id, kind)
            with self.tools.slots.taken(kind, None if owed is None else owed.subscriber) as slot:
                if slot is not None and (claim := self.claim(effect_id, kind)) is not None:
                    return self.run_claimed(claim, owed, slot)
            return self._left_alone(effect_id, kind, slot is not None)
        except DBAPIError as error:
            reason = _reason(error, effect=effect_id)
            logger.warning("an effect was not claimed", effect=effect_id, kind=kind, reason=reason)
            raise TryAgainError(f"{reason} · effect {effect_id}") from None

    def _owed(self, effect_id: UUID, kind: str) -> Owed | None:
        if EffectKind(kind).entry.service is not Service.WEBHOOKS:
            return None
        return self._claiming(self.owed, effect_id)

    def owed_together(self, effect_ids: Sequence[UUID]) -> list[Owed | None]:
        """Look up with one statement what deliveries bring to whom, in their order."""
        with looking(self.tools.engine) as connection:
            found = deliveries.owed(connection, effect_ids)
        return [found.get(effect_id) for effect_id in effect_ids]

    def _left_alone(self, effect_id: UUID, kind: str, free: bool) -> Answer:
        if not free:
            with self.tools.engine.begin() as connection:
                effects.put_off(connection, effect_id, BUSY_S)
        with looking(self.tools.engine) as connection:
            seen = standing.look(connection, effect_id, QUEUES[kind])
        why = answers.why_not_claimed(kind, seen) if free else answers.BUSY
        logger.info("an offer was left alone", effect=effect_id, kind=kind, reason=why)
        return answers.nothing_to_do(effect_id, seen, why)

    def run_claimed(self, claim: Claim, owed: Owed | None = None, slot: Slot = FREE) -> Answer:
        """Run one try of a claimed effect and record what came of it. Raises what `run` raises.

        Parameters:
            owed: what it brings to whom, if it is a delivery.
            slot: for the call. After a success it is given back before the result is recorded, because that
                calls nobody.
        """
        if claim.lost_tries:
            logger.warning("the try before was lost", lost=claim.lost_tries, **reporting.fields(claim))
        with spans.of_try(claim) as span:
            return self._run_traced(replace(claim, traceparent=span.traceparent), owed, slot)

    def _run_traced(self, claim: Claim, owed: Owed | None, slot: Slot) -> Answer:
        about = About.claimed(claim)
        try:
            return self._run(about, owed, slot)
        except DBAPIError as error:
            # The result is not recorded: the effect stays running until its lease ends, then it is offered again.
            reason = _reason(error, **reporting.fields(claim))
            logger.warning("a try was not recorded", reason=reason, **reporting.fields(claim))
            raise TryAgainError(about.says(reason)) from None

    def _run(self, about: About, owed: Owed | None, slot: Slot) -> Answer:
        claim = about.claim
        if claim.lost_tries >= LOST_TRIES and claim.retrying_for_s >= self.tools.retry.retry_for_s:
            # Most likely the effect ends its workers.
            cause = find_cause(claim.kind, NEVER_REPORTED)
            return self._fail(about, f"{NEVER_REPORTED}{_retried(claim)}", None, cause)
        deadline = Deadline.after(self.tools.call_timeout_s)
        try:
            payload = EffectKind(claim.kind).entry.read(claim.payload)
            recorded = self.actions[claim.kind](Run(claim, payload, self.tools, deadline, owed))
            # After a failure it is kept until the circuit knows, so that no other thread calls before that.
            slot.give_back()
        except Permanent as error:
            return self._fail(about, str(error), error, _cause_of(claim, error))
        except Transient as error:
            if isinstance(error, Crowded):
                self.tools.slots.shrink(claim.kind, error.others)
            delay_s = 0.0 if isinstance(error, Gone) else self._delay_s(claim, error)
            return self._try_again(about, str(error), error, _cause_of(claim, error), delay_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, the try must be recorded
            # Most likely the database failed, or a bug did that the next release mends.
            reason = _reason(error, **reporting.fields(claim))
            cause = find_cause(
                claim.kind, reason, exception=type(error).__name__, codes=describe(error).split()
            )
            return self._try_again(about, reason, None, cause, self._delay_s(claim, None))
        result = TryResult.LOGGED if claim.kind in self._only_logged else TryResult.DONE
        end = TryEnd(claim.id, claim.number, result)
        if recorded is Recorded.BY_ACTION:
            self._report(claim, end)
        elif not self.record(Result(claim, end, circuit.note_answer)):
            return self._too_late(about)
        return about.done(result)

    def _too_late(self, about: About) -> Answer:
        """Answer for a try whose end is not recorded, because another worker has taken or finished the effect."""
        claim = about.claim
        with looking(self.tools.engine) as connection:
            seen = standing.look(connection, claim.id, QUEUES[claim.kind])
        if seen is not None and seen.state == EffectState.DONE:
            return about.done("done before this try came back")
        why = f"came back too late: {answers.why_not_claimed(claim.kind, seen)}"
        return answers.nothing_to_do(claim.id, seen, why)

    def claim(self, effect_id: UUID, kind: str) -> Claim | None:
        """Claim an effect, perhaps in one transaction with others. None when it is not due or not free."""
        wanted = Wanted(effect_id, kind, QUEUES[kind])
        try:
            claim = self._claiming(self.claims, wanted)
            return self._claiming(self.claim_alone, wanted) if claim is Passed.OVER else claim
        except (IntegrityError, effects.ProbeTakenError):
            # At this moment another worker began an effect on the same target, or the probe of the service.
            with self.tools.engine.begin() as connection:
                effects.wait(connection, effect_id)
            return None

    def claim_together(self, wanted: Sequence[Wanted]) -> list[Claim | Passed | None]:
        """Claim effects in one transaction. Returns one claim, or what stands for it, in their order."""
        distinct = {one.id: one for one in wanted}  # the same offer may be in hand twice
        with self.tools.engine.begin() as connection:
            claims = effects.claim(connection, list(distinct.values()), self.tools.lease_s)
        return [claims.pop(one.id, Passed.OVER) for one in wanted]

    def claim_alone(self, wanted: Wanted) -> Claim | None:
        """Claim an effect that was passed over.

        Another transaction may have had it locked for a moment, and will not run it: a relay locks an effect that
        another relay has just offered, before it sees that. The offer would be lost until it expires.
        """
        try:
            with self.tools.engine.begin() as connection:
                return effects.claim(connection, [wanted], self.tools.lease_s, waits=True).get(wanted.id)
        except DBAPIError as error:
            if classify(error) is Failure.RETRY:  # it is locked for longer than a moment
                return None
            raise

    def _delay_s(self, claim: Claim, error: Transient | None) -> float | None:
        return delay_before_retry(
            self.tools.retry,
            tries=claim.unforgiven,
            retrying_for_s=claim.retrying_for_s,
            chance=random.random(),  # noqa: S311 - jitter, no secret
            retry_after_s=None if error is None else error.retry_after_s,
        )

    def _try_again(
        self, about: About, reason: str, error: Transient | None, cause: Cause, delay_s: float | None
    ) -> Answer:
        claim = about.claim
        if delay_s is None:
            return self._fail(about, f"{reason}{_retried(claim)}", error, cause)
        end = TryEnd(claim.id, claim.number, TryResult.RETRY, reason, delay_s, cause.id)
        if self._record_failure(claim, end, error, cause):
            if isinstance(error, Gone):
                logger.warning(
                    "a webhook is switched off",
                    subscriber=claim.queue,
                    reason=reason,
                    hint="`invigilator webhooks on` continues",
                )
            raise TryAgainError(about.says(reason))
        return self._too_late(about)

    def _fail(self, about: About, reason: str, error: ServiceError | None, cause: Cause) -> Answer:
        claim = about.claim
        end = TryEnd(claim.id, claim.number, TryResult.FAILED, reason, cause=cause.id)
        if self._record_failure(claim, end, error, cause):
            raise TryFailedError(about.says(reason))
        return self._too_late(about)

    def _record_failure(self, claim: Claim, end: TryEnd, error: ServiceError | None, cause: Cause) -> bool:
        def note(connection: Connection, claim: Claim, ended: RecordedTry) -> Change | None:
            if isinstance(error, Gone):
                deliveries.switch_off(connection, claim.queue, str(error))
            return circuit.note_error(connection, claim, ended, error, self.tools.retry)

        return self.record(Result(claim, end, note, cause))

    def record(self, result: Result) -> bool:
        """Record the result of a try. Return False if the try is not the effect's current one any more.

        It is repeated while the database is away, because a success that is not recorded leads to a second call.
        """
        recorded = self._recording(self.results, result)
        if not recorded:
            # The lease had ended and another worker has taken the effect, whose result counts. Or an earlier commit
            # succeeded and only its answer was lost.
            logger.info(
                "a try came back too late to be recorded",
                result=result.end.result,
                reason=result.end.error,
                **reporting.fields(result.claim),
            )
        return recorded

    def record_together(self, results: Sequence[Result]) -> list[bool]:
        """Record results in one transaction. False stands for a result that came too late."""
        new_causes = {one.cause for one in results if one.cause is not None} - self._known_causes
        with self.tools.engine.begin() as connection:
            ended = effects.end_tries(connection, [result.end for result in results])
            causes.store(connection, [asdict(cause) for cause in new_causes])
            changes = [
                (result, result.note(connection, result.claim, ended[result.end.key]))
                for result in sorted(
                    results, key=lambda one: one.claim.queue
                )  # all lock circuits in one order
                if result.end.key in ended
            ]
        known = self._known_causes if len(self._known_causes) < MANY_CAUSES else frozenset()
        self._known_causes = known | new_causes
        for result, change in changes:
            self._report(result.claim, result.end, change)
        return [result.end.key in ended for result in results]


def _cause_of(claim: Claim, error: ServiceError) -> Cause:
    # The name of a webhook's subscriber may hold digits, too.
    codes = [claim.queue] if error.reason is None else [claim.queue, error.reason]
    return find_cause(
        claim.kind, str(error), exception=type(error).__name__, status=error.status, codes=codes
    )


def _retried(claim: Claim) -> str:
    return f" (retried for {claim.retrying_for_s:.0f} s)"


class _Patience:
    """Calls again, for a while, what fails for now.

    The first call is made without tenacity, which would take a twentieth of a worker's CPU. The time begins after
    it, and a first pause.
    """

    def __init__(self, seconds: float, is_for_now: Callable[[BaseException], bool]) -> None:
        self._is_for_now = is_for_now
        self._retrying = Retrying(
            stop=stop_after_delay(seconds),
            wait=wait_random_exponential(max=RECORD_PAUSE_S),
            retry=retry_if_exception(is_for_now),
            reraise=True,
        )

    def __call__(self, work: Callable[[Item], Done], item: Item) -> Done:
        try:
            return work(item)
        except Exception as error:
            if not self._is_for_now(error):
                raise
        time.sleep(random.uniform(0, FIRST_PAUSE_S))  # noqa: S311 - jitter, no secret
        return self._retrying(work, item)


def _is_away(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and classify(error) is Failure.UNAVAILABLE


def _only_logged(services: Services) -> frozenset[str]:
    """The kinds whose calls reach nobody: they are only written to the log."""
    return frozenset(kind for kind in EffectKind if services.only_logs(kind.entry.service))


def _reason(error: Exception, **about: Any) -> str:
    """Describe an error that the service did not cause. Its text may hold personal data, so it is not quoted.

    The text of a database that is away is quoted: it says why, and holds no data.

    Parameters:
        about: the fields of the line that is logged of an error that nobody expects.
    """
    if _is_away(error):
        return f"the database is away: {brief(error)}"
    if _may_be_recorded_later(error):
        return f"the database does not serve us now: {describe(error)}"
    reason = f"unexpected {describe(error)}"
    logger.error(
        "a try broke", reason=reason, exception="".join(format_tb(error.__traceback__)).rstrip(), **about
    )
    return reason


def _may_be_recorded_later(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and classify(error) not in (Failure.DATA, Failure.OTHER)
