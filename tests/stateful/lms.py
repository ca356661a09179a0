"""The other side, under the machine's thumb: every call waits until the machine says what becomes of it."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, select

from db.models import Effect
from tests.stateful.faults import CrashError
from worker.commands.handler import ClaimedCascade, Handler
from worker.errors import Refused, Unavailable
from worker.kinds import EffectKind
from worker.lms.ports import CallKey, CreditRequirement, Deadline, Mail

PATIENCE_S = 60.0  # how long a worker may run before the machine gives up; it takes milliseconds

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
    """One call, from the moment when it is made."""

    kind: EffectKind
    effect_id: UUID
    number: int
    """Of the try."""
    sequence: int | None = None
    target: Target | None = None
    value: str | None = None
    """Of the credit; None removes it."""
    landed: bool = False
    """Whether the other side has carried it out."""
    late: bool = False
    """Whether it was given up before that: its try was over."""
    heard: bool = False
    """Whether its worker was told so."""


class Worker(threading.Thread):
    """A worker that runs only while the machine waits for it: until it makes its call, and then to its end."""

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
        """Run until the call. None when it came to its end without one."""
        self.start()
        self._await()
        return self.call

    def answer(self, error: BaseException | None = None) -> None:
        """Let the call return, or raise; the worker runs to its end."""
        self.call, self._answer = None, error
        self._turn.release()
        self._await()
        assert not self.is_alive(), "one call for each try"

    def wait_for_answer(self, call: Call) -> None:
        """In the worker's thread: the call is made."""
        self.call = call
        self._back.release()
        self._turn.acquire()
        if self._answer is not None:
            raise self._answer

    def run(self) -> None:
        """See `threading.Thread`."""
        try:
            self.result = self._run()
        except BaseException as error:  # noqa: BLE001 - the machine looks at it
            self.error = error
        self._back.release()

    def _await(self) -> None:
        assert self._back.acquire(timeout=PATIENCE_S), "the worker hangs"
        if self.call is None:
            self.join()


@dataclass
class ModelLms:
    """Every port of the other side. Credit as an LMS keeps it, with or without respect for the headers."""

    reader: Engine
    honours_sequence: bool
    honours_key: bool = False
    credit: dict[Target, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    applied: dict[Target, list[Call]] = field(default_factory=lambda: defaultdict(list))
    """What has changed a target, in the order in which it did."""
    _newest: dict[Target, int] = field(default_factory=dict)
    _keys: set[UUID] = field(default_factory=set)

    # --- the ports ---------------------------------------------------------------------------------------

    def set_status(
        self, requirement: CreditRequirement, status: str, key: CallKey, deadline: Deadline
    ) -> None:
        self._credit(EffectKind.SET_CREDIT_STATUS, requirement, status, key)

    def remove(self, requirement: CreditRequirement, key: CallKey, deadline: Deadline) -> None:
        self._credit(EffectKind.REMOVE_CREDIT_STATUS, requirement, None, key)

    def course_name(self, user_id: str, course_id: str, deadline: Deadline) -> str | None:
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
        """No call at all, but a place where a worker may be held up or killed."""
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
        """Carry a call out, now."""
        assert not call.landed
        call.landed = True
        if call.target is not None and call.sequence is not None:
            self._change(call.target, call.sequence, call)

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
        """An older value never lands after a newer one, but where the issue says that it may."""
        ids = {call.effect_id, *(other.effect_id for other in self.applied[target])}
        with self.reader.connect() as connection:
            rows = connection.execute(
                select(Effect.id, Effect.sequence, Effect.state, Effect.tries).where(Effect.id.in_(ids))
            )
            effects = {row.id: row for row in rows}
        mine = effects.pop(call.effect_id)
        call.late = (mine.state, mine.tries) != ("running", call.number)
        if any(other.sequence > mine.sequence and other.state != "cancelled" for other in effects.values()):
            assert not self.honours_sequence, "an LMS that honours the sequence drops it"
            assert call.late, "an older value landed after a newer one, in a call that was still awaited"


def raised(answer: Answer) -> BaseException | None:
    """What a worker's call raises, as the adapters do."""
    return {
        Answer.OK: None,
        Answer.UNAVAILABLE: Unavailable("LMS answered 503"),
        Answer.REFUSED: Refused("LMS answered 400"),
        Answer.TIMED_OUT: Unavailable("LMS took longer than 10 s"),
        Answer.DIED: CrashError(),
    }[answer]


class HeldUpHandler(Handler):
    """The handler of an effect worker, which may be held up before it settles a cascade."""

    __slots__ = ("lms",)

    lms: ModelLms

    @classmethod
    def of(cls, handler: Handler, lms: ModelLms) -> "HeldUpHandler":
        """The same handler, held up by `lms`."""
        held_up = cls(handler.policies, handler.instructor)
        object.__setattr__(held_up, "lms", lms)
        return held_up

    def settle_cascades(self, connection: Connection, claimed: Sequence[ClaimedCascade]) -> list[bool]:
        for one in claimed:
            self.lms.cascade(one.effect_id)
        return Handler.settle_cascades(self, connection, claimed)
