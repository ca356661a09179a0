"""What must be true after a storm: each invariant, and whatever offends it."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from typing import Any

from sqlalchemy import Row, text

from db.totals import EFFECTS
from invigilator.demo.reference import Result
from invigilator.demo.reference.store import DELETE
from tests.acceptance import acts
from tests.acceptance.harness import Stack
from tests.acceptance.oracle import Record, calm_record, expected_credit, read_record
from tests.chaos.otherside import MoodyLms, MoodyMailSink
from tests.chaos.traffic import Traffic
from tests.counted import DIFFERENCES
from tests.engines import disposed

SHOWN = 10
"""Offenders of one invariant that are reported, at most."""

_NO_OUTCOME = """
SELECT source, command_id FROM inbox LEFT JOIN outcomes ON inbox_id = inbox.id WHERE outcome IS NULL
"""
_GAPS = """
SELECT * FROM (
    SELECT a.id, a.exam_id, a.user_id, a.version AS last, t.version, t.from_status, t.to_status,
           row_number() OVER steps AS expected, lag(t.to_status) OVER steps AS before,
           count(*) OVER (PARTITION BY a.id) AS steps
    FROM attempts a JOIN transitions t ON attempt_id = a.id
    WINDOW steps AS (PARTITION BY a.id ORDER BY t.version)
) AS history
WHERE version <> expected OR from_status IS DISTINCT FROM before OR last <> steps
"""
_TWO_LIVE = """
SELECT exam_id, user_id, count(*) FROM attempts WHERE removed_at IS NULL GROUP BY 1, 2 HAVING count(*) > 1
"""
_UNFINISHED = """
SELECT id, kind, state, tries, target, last_error FROM effects AS one WHERE state IN ('pending', 'running')
OR (state IN ('failed', 'cancelled', 'superseded') AND NOT EXISTS (
    SELECT FROM effects AS newer WHERE newer.target = one.target AND newer.sequence > one.sequence))
"""
# A try whose end is not known for sure: nobody recorded it, or the answer did not come.
_EFFECTS = """
SELECT id, kind, state, order_key, effects.sequence, tries, bool_or(result = 'failed') AS has_failed,
    count(*) FILTER (
    WHERE result = 'lost' OR (result = 'retry' AND (
        tries.error LIKE 'no answer from the LMS to POST%'
        OR tries.error LIKE 'POST % took longer than%'
        OR tries.error LIKE '%the mail server broke%'
        OR tries.error LIKE 'the mail server took longer than%'))) AS unsure
FROM effects LEFT JOIN tries ON effect_id = effects.id
GROUP BY effects.id, kind, state, order_key, effects.sequence, effects.tries
"""
_TRIES = "SELECT result, count(*) AS number FROM tries GROUP BY result"

CREDIT = ("set_credit_status", "remove_credit_status")
RESET = "delete_student_attempt"
MAIL = "send_status_email"


class Audit:
    """The invariants of a settled system whose other side has been shut.

    Parameters:
        cancelled: the ids of the effects that an operator has cancelled, also if they were retried afterwards.
        losing: the moments at which the broker may have taken a command that it lost, in seconds since 1970.
    """

    def __init__(
        self,
        stack: Stack,
        lms: MoodyLms,
        traffic: Traffic,
        calm_database_url: str,
        cancelled: Collection[str],
        losing: Container[float] = (),
    ) -> None:
        self.findings: dict[str, list[str]] = {}
        self._stack = stack
        self._lms = lms
        self._traffic = traffic
        self._calm_database_url = calm_database_url
        self._cancelled = cancelled
        handled = stack.rows("SELECT source, command_id FROM inbox JOIN outcomes ON inbox_id = inbox.id")
        self._known = {(row.source, row.command_id) for row in handled}
        self.lost = {
            key for key, moment in traffic.taken_at.items() if key not in self._known and moment in losing
        }
        """Commands that the broker has lost, as its documents say that it may."""
        self._effects = {str(row.id): row for row in stack.rows(_EFFECTS)}

    def run(self, others: Mapping[str, Callable[[], Iterable[object]]]) -> Mapping[str, list[str]]:
        """Check everything. Returns the offenders by invariant; empty when all is well.

        Parameters:
            others: further invariants, each with what finds its offenders.
        """
        checks: dict[str, Callable[[], Iterable[object]]] = {
            "every command taken by the broker has exactly one outcome": self._outcomes,
            "what is no command is in quarantine, and nothing else": self._quarantine,
            "the history of each attempt has no gap": lambda: self._stack.rows(_GAPS),
            "a command changes only the attempt that it names": self._misdirected,
            "each change happened when its command says, and history does not run backwards": self._mistimed,
            "no attempt has two live rows": lambda: self._stack.rows(_TWO_LIVE),
            "outcomes, histories and effects are those of a calm day": self._calm_day,
            "no effect is lost: all are done, or a newer one took their place": self._lost,
            "the LMS's credit is what the last transition says": self._credit,
            "no older credit value lands after a newer one": self._out_of_order,
            "the mails about an attempt come in the order of its changes": self._mails_out_of_order,
            "a call or mail comes again only when an answer or its record was lost": self._doubled,
            "nothing reaches the other side that was never owed": self._never_owed,
            "the totals are those of the rows": self._miscounted,
        }
        for invariant, check in {**checks, **others}.items():
            offenders = [_shown(one) for one in check()]
            if offenders:
                self.findings[invariant] = [f"{len(offenders)} in all", *offenders[:SHOWN]]
        return self.findings

    def _outcomes(self) -> Iterable[object]:
        yield from (("lost", key) for key in self._traffic.commands.keys() - self._known - self.lost)
        yield from (("never published", key) for key in self._known - self._traffic.commands.keys())
        yield from self._stack.rows(_NO_OUTCOME)

    def _quarantine(self) -> Iterable[object]:
        kept = {bytes(row.body) for row in self._stack.rows("SELECT body FROM quarantine")}
        sent = set(self._traffic.nonsense)
        yield from (("lost", body[:200]) for body in sent - kept)
        yield from (("never published", body[:200]) for body in kept - sent)

    def _misdirected(self) -> Iterable[object]:
        steps, removals = self._stack.rows(acts.STEPS), self._stack.rows(acts.REMOVALS)
        yield from acts.misdirected(steps, removals, self._traffic.commands)

    def _mistimed(self) -> Iterable[object]:
        yield from acts.mistimed(self._stack.rows(acts.STEPS), self._traffic.commands)

    def _calm_day(self) -> Iterable[object]:
        came = [body for key, body in self._traffic.commands.items() if key not in self.lost]
        calm = calm_record(self._calm_database_url, came)
        with disposed(self._stack.reading_url) as engine, engine.connect() as connection:
            stormy = read_record(connection)
        yield from _differences(calm, stormy)

    def _lost(self) -> Iterable[object]:
        yield from self._stack.rows(_UNFINISHED)
        arrived = self._calls() + self._mails()
        for effect_id, row in self._effects.items():
            if row.state == "done" and row.kind in (*CREDIT, RESET, MAIL) and not arrived[effect_id]:
                yield ("done, and never arrived", row)

    def _credit(self) -> Iterable[object]:
        for key, status in expected_credit(self._stack).items():
            if self._stack.lms.credit(*key) != status:
                yield (key, f"should be {status}", f"is {self._stack.lms.credit(*key)}")

    def _out_of_order(self) -> Iterable[object]:
        newest: dict[tuple[str | None, ...], int] = {}
        for call in self._stack.lms.calls:
            effect = self._effects.get(call.effect_id)
            if call.path == DELETE or call.result is not Result.APPLIED or effect is None:
                continue
            target = tuple(call.body[field] for field in ("user_id", "course_id", "req_name"))
            if effect.sequence < newest.get(target, 0):
                yield (target, call, effect)
            newest[target] = effect.sequence

    def _mails_out_of_order(self) -> Iterable[object]:
        """Mails that came for the first time after a newer one about the same attempt had come.

        A mail that had failed for good, or was cancelled, may come late: an operator has retried it.
        """
        newest: dict[str, int] = {}
        for effect_id in self._mails():  # a Counter keeps the order of the first arrivals
            effect = self._effects.get(effect_id)
            if effect is None or effect.has_failed or effect_id in self._cancelled:
                continue
            if effect.sequence < newest.get(effect.order_key, 0):
                yield effect
            newest[effect.order_key] = effect.sequence

    def _doubled(self) -> Iterable[object]:
        for effect_id, times in (self._calls() + self._mails()).items():
            effect = self._effects.get(effect_id)
            if effect is not None and times > (effect.state == "done") + effect.unsure:
                tries = self._stack.rows(
                    "SELECT * FROM tries WHERE effect_id = :id ORDER BY number", id=effect_id
                )
                yield (f"came {times} times", effect, tries)
        resets = Counter(
            call.effect_id
            for call in self._stack.lms.calls
            if call.path == DELETE and call.result is Result.APPLIED
        )
        yield from ((reset, times) for reset, times in resets.items() if times > 1)

    def _never_owed(self) -> Iterable[object]:
        yield from (one for one in (self._calls() + self._mails()) if one not in self._effects)
        yield from self._lms.refusals

    def _miscounted(self) -> Iterable[object]:
        # Of effects, those that are there are counted. Of all else, also what was dropped.
        yield from (row for row in self._stack.rows(DIFFERENCES) if row.name != EFFECTS)
        with disposed(self._stack.database_url) as engine, engine.connect() as connection:
            yield from (row for row in connection.execute(text(DIFFERENCES)) if row.name == EFFECTS)

    def _calls(self) -> Counter[str]:
        return Counter(call.effect_id for call in self._stack.lms.calls)

    def _mails(self) -> Counter[str]:
        return Counter(mail.message_id.strip("<>").partition("@")[0] for mail in self._stack.mail.mails)


def _differences(calm: Record, stormy: Record) -> Iterable[object]:
    for name, expected, found in (
        ("outcome", calm.outcomes, stormy.outcomes),
        ("history", calm.histories, stormy.histories),
        ("effects", calm.effects, stormy.effects),
    ):
        yield from _difference(name, dict(expected), dict(found))


def _difference(name: str, calm: dict[Any, Any], stormy: dict[Any, Any]) -> Iterable[object]:
    for key in calm.keys() | stormy.keys():
        if calm.get(key) != stormy.get(key):
            yield (name, key, f"calm: {calm.get(key)}", f"storm: {stormy.get(key)}")


def _shown(offender: object) -> str:
    if isinstance(offender, Row):
        return json.dumps(dict(offender._mapping), default=str)
    return str(offender)


def figures(stack: Stack, lms: MoodyLms, mail: MoodyMailSink, traffic: Traffic) -> dict[str, object]:
    """What a run was about, in numbers."""
    outcomes = stack.number("SELECT count(*) FROM outcomes")
    tries: defaultdict[str, int] = defaultdict(int)
    tries |= {row.result: row.number for row in stack.rows(_TRIES)}
    return {
        "commands": outcomes,
        "messages": traffic.counts["messages"] + traffic.counts["malformed"],
        "malformed": traffic.counts["malformed"],
        "publish_errors": traffic.counts["publish errors"],
        "duplicates_suppressed": traffic.counts["messages"] - outcomes,
        "transitions": stack.number("SELECT count(*) FROM transitions"),
        "tenures": stack.number("SELECT sum(epoch) FROM shards"),
        "effects": stack.number("SELECT count(*) FROM effects"),
        "superseded": stack.number("SELECT count(*) FROM effects WHERE state = 'superseded'"),
        "tries": sum(tries.values()),
        "tries_done": tries["done"],
        "tries_again": tries["retry"],
        "tries_refused": tries["failed"],
        "tries_lost": tries["lost"],
        "tries_folded": tries["folded"],
        "redelivered_tasks": sum(one.output().count("an offer was left alone") for one in stack.processes),
        "lms_calls": len(stack.lms.calls),
        "lms_duplicates": stack.lms.reference.counts[Result.DUPLICATE],
        "lms_late": stack.lms.reference.counts[Result.LATE],
        "lms_calls_spoilt": lms.moods.touched.total(),
        "mails": len(stack.mail.mails),
        "mails_spoilt": mail.moods.touched.total(),
        "mails_doubled": mail.duplicates,
    }
