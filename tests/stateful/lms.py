"""A model of the LMS and the mail server. Every call waits until the state machine decides its result."""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, select

from db.models import Effect
from tests.stateful.faults import CrashError
from worker.commands.handler import ClaimedCascade, Handler
from worker.errors import Refused, Unavailable
from worker.kinds import EffectKind
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Mail, Origin

PATIENCE_S = 60.0  # seconds that a worker may run before the test fails; it takes milliseconds

Target = tuple[str, str, str]  # user, course, content


class Answer(Enum):
    """How a call ends for the worker that made it."""

    OK = "carried out, and answered"
    UNAVAILABLE = "503 before anything was done"
    REFUSED = "refused for good"
    TIMED_OUT = "no answer; it may have been carried out, or may yet be"
    DIED = "the worker is killed during the call"


UNHEARD = (Answer.TIMED_OUT, Answer.DIED)


@dataclass(eq=False)
class Call:
    """A call that a worker has made."""

    kind: EffectKind
    effect_id: UUID
    number: int
    """The number of the try."""
    sequence: int | None = None
    target: Target | None = None
    value: str | None = None
    """The credit status to set, or None to remove the credit."""
    landed: bool = False
    """Whether the LMS has carried the call out."""
    late: bool = False
    """Whether the call was carried out after its try had ended."""
    heard: bool = False
    """Whether the worker got the answer that the call was carried out."""


class Worker(threading.Thread):
    """A worker thread that runs only while the state machine waits for it: to its call, and then to its end."""

    def __init__(self, run: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._turn = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._answer: BaseException | None = None
        self.call: Call | None = None
        self.error: BaseException | None = None
        self.result: object = None

    def begin(self) -> Call | None:
        """Run until the worker makes a call, and return the call. Return None when it ended without one."""
        self.start()
        self._await()
        return self.call

    def answer(self, error: BaseException | None = None) -> None:
        """Let the call return, or raise `error`, and wait for the end of the worker."""
        self.call, self._answer = None, error
        self._turn.release()
        self._await()
        assert not self.is_alive(), "one call for each try"

    def wait_for_answer(self, call: Call) -> None:
        """Announce a call and wait for its result. The worker's own thread calls this."""
        self.call = call
        self._back.release()
        self._turn.acquire()
        if self._answer is not None:
            raise self._answer

    def run(self) -> None:
        """See `threading.Thread`."""
        try:
            self.result = self._run()
        except BaseException as error:  # noqa: BLE001 - the state machine checks it
            self.error = error
        self._back.release()

    def _await(self) -> None:
        assert self._back.acquire(timeout=PATIENCE_S), "the worker hangs"
        if self.call is None:
            self.join()


@dataclass
class ModelLms:
    """Implements every port. Its credit service may honour the two headers of a call or ignore them."""

    reader: Engine
    honours_sequence: bool
    honours_key: bool = False
    credit: dict[Target, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    applied: dict[Target, list[Call]] = field(default_factory=lambda: defaultdict(list))
    """The calls that changed each target, in order."""
    mails: dict[UUID, None] = field(default_factory=dict)
    """The mails that the mail server has, in the order in which they came first."""
    retried: set[UUID] = field(default_factory=set)
    """The effects that an operator has retried."""
    _newest: dict[Target, int] = field(default_factory=dict)
    _keys: set[UUID] = field(default_factory=set)

    # --- the ports ---------------------------------------------------------------------------------------

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        self._credit(EffectKind.SET_CREDIT_STATUS, requirement, status, key)

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        self._credit(EffectKind.REMOVE_CREDIT_STATUS, requirement, None, key)

    def course_name(
        self, user_id: str, course_id: str, origin: Origin | None, deadline: Deadline
    ) -> str | None:
        return None

    def delete_student_attempt(
        self,
        username: str,
        course_id: str,
        content_id: str,
        requested_by: str | None,
        key: CallKey,
        deadline: Deadline,
    ) -> None:
        self._arrive(EffectKind.DELETE_STUDENT_ATTEMPT, key.effect_id, sequence=key.sequence)

    def send(self, mail: Mail, deadline: Deadline) -> None:
        self._arrive(EffectKind.SEND_STATUS_EMAIL, mail.effect_id)

    def cascade(self, effect_id: UUID) -> None:
        """Wait as for a call. A cascade makes no call, but its worker may be delayed or killed here, too."""
        self._arrive(EffectKind.CASCADE_DECLINE, effect_id)

    def _credit(
        self, kind: EffectKind, requirement: CreditRequirement, value: str | None, key: CallKey
    ) -> None:
        target = (requirement.user_id, requirement.course_id, requirement.name)
        earlier = [call.sequence for call in self.calls if call.target == target and call.sequence]
        assert key.sequence > max(earlier, default=0), "the sequence grows for each target"
        self._arrive(kind, key.effect_id, sequence=key.sequence, target=target, value=value)

    def _arrive(self, kind: EffectKind, effect_id: UUID, **other: Any) -> None:
        with self.reader.connect() as connection:
            number = connection.scalar(select(Effect.tries).where(Effect.id == effect_id))
        assert number is not None
        call = Call(kind, effect_id, number, **other)
        self.calls.append(call)
        worker = threading.current_thread()
        assert isinstance(worker, Worker)
        worker.wait_for_answer(call)

    # --- what becomes of a call --------------------------------------------------------------------------

    def land(self, call: Call) -> None:
        """Carry a call out."""
        assert not call.landed
        call.landed = True
        if call.kind is EffectKind.SEND_STATUS_EMAIL and call.effect_id not in self.mails:
            self._check_mail(call)
            self.mails[call.effect_id] = None
        if call.target is not None and call.sequence is not None:
            self._change(call.target, call.sequence, call)

    def _check_mail(self, call: Call) -> None:
        """Check that a mail comes before every newer one about its attempt.

        It may come late if an operator has retried it, or if its try was over already: it has failed since.
        """
        effects = self._effects({call.effect_id, *self.mails})
        mine = effects.pop(call.effect_id)
        if any(one.order_key == mine.order_key and one.sequence > mine.sequence for one in effects.values()):
            late = (mine.state, mine.tries) != ("running", call.number)
            assert late or call.effect_id in self.retried, "an older mail came after a newer one"

    def _change(self, target: Target, sequence: int, call: Call) -> None:
        if self.honours_sequence and sequence < self._newest.get(target, 0):
            return
        self._newest[target] = sequence
        if self.honours_key and call.effect_id in self._keys:
            return
        self._keys.add(call.effect_id)
        self._check_order(target, call)
        self.applied[target].append(call)
        if call.value is None:
            self.credit.pop(target, None)
        else:
            self.credit[target] = call.value

    def _check_order(self, target: Target, call: Call) -> None:
        """Check that an older value lands after a newer one only in a late call to an LMS without sequences."""
        effects = self._effects({call.effect_id, *(other.effect_id for other in self.applied[target])})
        mine = effects.pop(call.effect_id)
        call.late = (mine.state, mine.tries) != ("running", call.number)
        if any(other.sequence > mine.sequence and other.state != "cancelled" for other in effects.values()):
            assert not self.honours_sequence, "an LMS that honours the sequence drops it"
            assert call.late, "an older value landed after a newer one, in a call that was still awaited"

    def _effects(self, ids: Collection[UUID]) -> dict[UUID, Row[Any]]:
        query = select(Effect.__table__).where(Effect.id.in_(ids))
        with self.reader.connect() as connection:
            return {row.id: row for row in connection.execute(query)}


def raised(answer: Answer) -> BaseException | None:
    """Return the error that an adapter raises for this answer, or None."""
    return {
        Answer.OK: None,
        Answer.UNAVAILABLE: Unavailable("LMS answered 503"),
        Answer.REFUSED: Refused("LMS answered 400"),
        Answer.TIMED_OUT: Unavailable("LMS took longer than 10 s"),
        Answer.DIED: CrashError(),
    }[answer]


class HeldUpHandler(Handler):
    """A handler that waits for the state machine before it settles a cascade."""

    __slots__ = ("lms",)

    lms: ModelLms

    @classmethod
    def of(cls, handler: Handler, lms: ModelLms) -> "HeldUpHandler":
        """Return a copy of the handler that waits at `lms`."""
        held_up = cls(handler.policies, handler.instructor)
        object.__setattr__(held_up, "lms", lms)
        return held_up

    def settle_cascades(self, connection: Connection, claimed: Sequence[ClaimedCascade]) -> list[bool]:
        for one in claimed:
            self.lms.cascade(one.effect_id)
        return Handler.settle_cascades(self, connection, claimed)
