"""One try of an effect: claim it, run it, record what came of it."""

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from traceback import format_tb
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from db import effects as store
from db.effects import Claim
from db.errors import Failure, classify, describe
from db.models import EffectKind
from worker.effects import cascade, credit, instructor, mail
from worker.effects.kinds import Payload, label
from worker.effects.running import Action, Run, Tools, TryFailedError
from worker.errors import Permanent, Transient
from worker.lms.ports import Deadline
from worker.rules.retry import delay_before_retry

logger = logging.getLogger(__name__)

RECORD_PAUSE_S = 2.0
"""Between two attempts to record a result while the database is away, at most."""

ACTIONS: Mapping[EffectKind, Action] = {
    EffectKind.SET_CREDIT_STATUS: credit.set_status,
    EffectKind.REMOVE_CREDIT_STATUS: credit.remove_status,
    EffectKind.CASCADE_DECLINE: cascade.decline,
    EffectKind.SEND_STATUS_EMAIL: mail.send_status,
    EffectKind.DELETE_STUDENT_ATTEMPT: instructor.delete_student_attempt,
}


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs effects. Safe to share between threads."""

    tools: Tools

    def run(self, effect_id: UUID) -> str:
        """Run an effect if it is due and free. Running it again is harmless.

        Returns what was done, for Flower.

        Raises:
            TryFailedError: the try failed, and that is recorded.
        """
        claim = self._claim(effect_id)
        if claim is None:
            return "nothing to do"
        payload = Payload(**claim.payload)
        deadline = Deadline.after(self.tools.call_timeout_s)
        shown = label(claim.kind, payload, claim.number)
        try:
            recorded = ACTIONS[claim.kind](Run(claim, payload, self.tools, deadline))
        except Permanent as error:
            self._fail(claim, str(error))
            raise TryFailedError(f"{shown}: {error}") from None
        except Transient as error:
            self._try_again(claim, str(error), error.retry_after_s)
            raise TryFailedError(f"{shown}: {error}") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the try must be recorded
            # Most likely the database, or a bug that the next release mends. Its text may hold anything.
            reason = f"unexpected {describe(error)}"
            logger.error("effect %s: %s\n%s", claim.id, reason, "".join(format_tb(error.__traceback__)))  # noqa: TRY400
            self._try_again(claim, reason, None)
            raise TryFailedError(f"{shown}: {reason}") from None
        if not recorded:
            self._record(claim, lambda connection: store.finish_try(connection, claim.id, claim.number))
        return f"{shown}: done"

    def _claim(self, effect_id: UUID) -> Claim | None:
        try:
            with self.tools.engine.begin() as connection:
                return store.claim(connection, effect_id, self.tools.lease_s)
        except IntegrityError:
            # Somebody began another effect on this target at this very moment: one at a time.
            with self.tools.engine.begin() as connection:
                store.wait_for_target(connection, effect_id)
            return None

    def _try_again(self, claim: Claim, error: str, retry_after_s: float | None) -> None:
        delay_s = delay_before_retry(
            self.tools.retry,
            tries=claim.number,
            retrying_for_s=claim.retrying_for_s,
            chance=random.random(),  # noqa: S311 - jitter, no secret
            retry_after_s=retry_after_s,
        )
        if delay_s is None:
            self._fail(claim, f"{error} (retried for {claim.retrying_for_s:.0f} s)")
            return
        seconds = delay_s
        self._record(
            claim,
            lambda connection: store.reschedule_try(connection, claim.id, claim.number, error, seconds),
        )

    def _fail(self, claim: Claim, error: str) -> None:
        if self._record(claim, lambda connection: store.fail_try(connection, claim.id, claim.number, error)):
            logger.warning("effect %s (%s) failed: %s", claim.id, claim.kind, error)

    def _record(self, claim: Claim, record: Callable[[Connection], bool]) -> bool:
        """Record what came of a try. An unrecorded success is a second call later, so it is worth an effort."""
        retrying = Retrying(
            stop=stop_after_delay(self.tools.lease_s / 4),
            wait=wait_random_exponential(max=RECORD_PAUSE_S),
            retry=retry_if_exception(_may_be_recorded_later),
            reraise=True,
        )
        recorded = retrying(self._record_once, record)
        if not recorded:
            # Its lease had ended and somebody else has taken it: their word counts. Or the answer of an
            # earlier commit was lost, and it is recorded.
            logger.info("effect %s: try %d came back too late to be recorded", claim.id, claim.number)
        return recorded

    def _record_once(self, record: Callable[[Connection], bool]) -> bool:
        with self.tools.engine.begin() as connection:
            return record(connection)


def _may_be_recorded_later(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and classify(error) in (Failure.AWAY, Failure.AGAIN)
