"""One try of an effect: claim it, run it, record what came of it."""

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from traceback import format_tb
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from db import effects as store
from db import standing
from db.effects import Claim, RecordedTry, TryEnd, Wanted
from db.errors import Failure, brief, classify, describe
from db.models import EffectState, TryResult
from worker.effects import answers, cascade, circuit, credit, instructor, mail
from worker.effects.action import Action, Run, Tools, TryAgainError, TryFailedError
from worker.effects.answers import About, Answer
from worker.effects.circuit import Change, Reporter
from worker.effects.coalescer import Coalescer, one_is_to_blame
from worker.errors import Crowded, Permanent, ServiceError, Transient
from worker.kinds import QUEUES, EffectKind, Payload
from worker.lms.connect import Services
from worker.lms.log import LogLms, LogMailer
from worker.lms.ports import Deadline
from worker.rules.retry import delay_before_retry

logger = logging.getLogger(__name__)

RECORD_PAUSE_S = 2.0
"""Between two attempts to record a result, or to claim an effect, while the database is away, at most."""
BUSY_S = 1.0
"""How long an effect is put off that finds every slot of its service taken."""
NEVER_REPORTED = "its worker never reported back"
LOST_TRIES = 3
"""So many workers that never reported back are no accident."""

Note = Callable[[Connection, Claim, RecordedTry], Change | None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a try, and what that says about its service."""

    claim: Claim
    end: TryEnd
    note: Note


class Runner:
    """Runs effects. Safe to share between threads, whose claims and results share transactions.

    The steps of `run` and the coalescers are public, because tests wait on them and crash points name them.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.claims = Coalescer(self.claim_together, isolate=one_is_to_blame)
        self.actions: Mapping[str, Action] = {
            EffectKind.SET_CREDIT_STATUS: credit.set_status,
            EffectKind.REMOVE_CREDIT_STATUS: credit.remove_status,
            EffectKind.CASCADE_DECLINE: Coalescer(cascade.decline, isolate=one_is_to_blame),
            EffectKind.SEND_STATUS_EMAIL: mail.SendStatus(),
            EffectKind.DELETE_STUDENT_ATTEMPT: instructor.delete_student_attempt,
        }
        self.results = Coalescer(self.record_together, isolate=one_is_to_blame)
        # Until others may have claimed it. A database that has failed over is back long before.
        self._recording = _patient(tools.lease_s, _may_be_recorded_later)
        # So what was offered before a failover need not be offered again.
        self._claiming = _patient(tools.lease_s / 4, _is_away)
        self._report = Reporter()
        self._only_logged = _only_logged(tools.services)

    def run(self, effect_id: UUID, kind: str) -> Answer:
        """Run an effect of a kind if it is due and free, and its service may be called. Again is harmless.

        Returns what was done, or why there was nothing to do.

        Raises:
            TryAgainError: it failed, or the database did, and the effect will be offered again by itself.
            TryFailedError: the effect has failed for good, and that is recorded.
        """
        try:
            with self.tools.slots.taken(kind) as free:
                claim = self.claim(effect_id, kind) if free else None
                if claim is not None:
                    return self.run_claimed(claim)
            return self._left_alone(effect_id, kind, free)
        except DBAPIError as error:
            raise TryAgainError(f"{_reason(effect_id, error)} · effect {effect_id}") from None

    def _left_alone(self, effect_id: UUID, kind: str, free: bool) -> Answer:
        if not free:
            with self.tools.engine.begin() as connection:
                store.put_off(connection, effect_id, BUSY_S)
        with self.tools.engine.connect() as connection:
            seen = standing.look(connection, effect_id, QUEUES[kind])
        why = answers.why_not_claimed(kind, seen) if free else answers.BUSY
        return answers.nothing_to_do(effect_id, seen, why)

    def run_claimed(self, claim: Claim) -> Answer:
        """Run one try of a claimed effect and record what came of it. Raises what `run` raises."""
        about = About.claimed(claim)
        try:
            return self._run(claim, about)
        except DBAPIError as error:
            # Its result is not recorded: it runs until its lease ends, and is then offered again.
            raise TryAgainError(about.says(_reason(claim.id, error))) from None

    def _run(self, claim: Claim, about: About) -> Answer:
        if claim.lost_tries >= LOST_TRIES and claim.retrying_for_s >= self.tools.retry.retry_for_s:
            # Most likely it is what ends its workers.
            return self._fail(claim, f"{NEVER_REPORTED} (retried for {claim.retrying_for_s:.0f} s)", None)
        deadline = Deadline.after(self.tools.call_timeout_s)
        try:
            recorded = self.actions[claim.kind](Run(claim, Payload(**claim.payload), self.tools, deadline))
        except Permanent as error:
            return self._fail(claim, str(error), error)
        except Transient as error:
            if isinstance(error, Crowded):
                self.tools.slots.shrink(claim.kind, error.others)
            return self._try_again(claim, str(error), error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the try must be recorded
            # Most likely the database, or a bug that the next release mends.
            return self._try_again(claim, _reason(claim.id, error), None)
        result = TryResult.LOGGED if claim.kind in self._only_logged else TryResult.DONE
        end = Result(claim, TryEnd(claim.id, claim.number, result), circuit.note_answer)
        return about.done(result) if recorded or self.record(end) else self._too_late(claim)

    def _too_late(self, claim: Claim) -> Answer:
        """Somebody else has taken the effect, or finished it: their word counts."""
        with self.tools.engine.connect() as connection:
            seen = standing.look(connection, claim.id, claim.queue)
        if seen is not None and seen.state == EffectState.DONE:
            return About.claimed(claim).done("done before this try came back")
        why = f"came back too late: {answers.why_not_claimed(claim.kind, seen)}"
        return answers.nothing_to_do(claim.id, seen, why)

    def claim(self, effect_id: UUID, kind: str) -> Claim | None:
        """Claim an effect, perhaps in one transaction with others. None when it is not due or not free."""
        try:
            return self._claiming(self.claims, Wanted(effect_id, kind, QUEUES[kind]))
        except (IntegrityError, store.ProbeTakenError):
            # Somebody began another effect on this target, or to probe the service, at this very moment.
            with self.tools.engine.begin() as connection:
                store.wait(connection, effect_id)
            return None

    def claim_together(self, wanted: Sequence[Wanted]) -> list[Claim | None]:
        """Claim effects in one transaction. Returns one claim, or None, for each of them, in their order."""
        distinct = {one.id: one for one in wanted}  # the same offer may be in hand twice
        with self.tools.engine.begin() as connection:
            claims = store.claim(connection, list(distinct.values()), self.tools.lease_s)
        return [claims.pop(one.id, None) for one in wanted]

    def _try_again(self, claim: Claim, reason: str, error: Transient | None) -> Answer:
        delay_s = delay_before_retry(
            self.tools.retry,
            tries=claim.unforgiven,
            retrying_for_s=claim.retrying_for_s,
            chance=random.random(),  # noqa: S311 - jitter, no secret
            retry_after_s=None if error is None else error.retry_after_s,
        )
        if delay_s is None:
            return self._fail(claim, f"{reason} (retried for {claim.retrying_for_s:.0f} s)", error)
        if self._record_failure(
            claim, TryEnd(claim.id, claim.number, TryResult.RETRY, reason, delay_s), error
        ):
            raise TryAgainError(About.claimed(claim).says(reason))
        return self._too_late(claim)

    def _fail(self, claim: Claim, reason: str, error: ServiceError | None) -> Answer:
        end = TryEnd(claim.id, claim.number, TryResult.FAILED, reason)
        if self._record_failure(claim, end, error):
            command = answers.command(claim.source, claim.command_id)
            logger.warning("effect %s (%s) failed: %s · %s", claim.id, claim.kind, reason, command)
            raise TryFailedError(About.claimed(claim).says(reason))
        return self._too_late(claim)

    def _record_failure(self, claim: Claim, end: TryEnd, error: ServiceError | None) -> bool:
        def note(connection: Connection, claim: Claim, ended: RecordedTry) -> Change | None:
            return circuit.note_error(connection, claim, ended, error, self.tools.retry)

        return self.record(Result(claim, end, note))

    def record(self, result: Result) -> bool:
        """Record what came of a try. An unrecorded success is a second call later, so it is worth an effort."""
        recorded = self._recording(self.results, result)
        if not recorded:
            # Its lease had ended and somebody else has taken it: their word counts. Or the answer of an
            # earlier commit was lost, and it is recorded.
            logger.info(
                "effect %s: try %d came back too late to be recorded", result.claim.id, result.end.number
            )
        return recorded

    def record_together(self, results: Sequence[Result]) -> list[bool]:
        """Record results in one transaction. False stands for a result that came too late."""
        with self.tools.engine.begin() as connection:
            ended = store.end_tries(connection, [result.end for result in results])
            changes = [
                result.note(connection, result.claim, ended[result.end.key])
                for result in sorted(
                    results, key=lambda one: one.claim.queue
                )  # all lock circuits in one order
                if result.end.key in ended
            ]
        for change in filter(None, changes):
            self._report(change)
        return [result.end.key in ended for result in results]


def _patient(seconds: float, retry: Callable[[BaseException], bool]) -> Retrying:
    return Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(max=RECORD_PAUSE_S),
        retry=retry_if_exception(retry),
        reraise=True,
    )


def _is_away(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and classify(error) is Failure.UNAVAILABLE


def _only_logged(services: Services) -> frozenset[str]:
    """The kinds whose calls reach nobody: they are written to the log."""
    called: Mapping[EffectKind, object] = {
        EffectKind.SET_CREDIT_STATUS: services.credit,
        EffectKind.REMOVE_CREDIT_STATUS: services.credit,
        EffectKind.SEND_STATUS_EMAIL: services.mailer,
        EffectKind.DELETE_STUDENT_ATTEMPT: services.instructor,
    }
    return frozenset(kind for kind, service in called.items() if isinstance(service, (LogLms, LogMailer)))


def _reason(effect_id: UUID, error: Exception) -> str:
    """What to say of an error that is none of the service's. Its text may hold anything, so it is not quoted.

    Except where the database is away: then it says why nobody can be served, and nothing of anybody's data.
    """
    if _is_away(error):
        return f"the database is away: {brief(error)}"
    if isinstance(error, DBAPIError) and classify(error) not in (Failure.DATA, Failure.OTHER):
        return f"the database does not serve us now: {describe(error)}"
    reason = f"unexpected {describe(error)}"
    logger.error("effect %s: %s\n%s", effect_id, reason, "".join(format_tb(error.__traceback__)))
    return reason


def _may_be_recorded_later(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and classify(error) not in (Failure.DATA, Failure.OTHER)
