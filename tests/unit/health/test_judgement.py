"""What facts mean: whether the system works, and what needs a person."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from db.backlog import Backlog
from db.deliveries import Endpoint
from db.pauses import Pause
from db.processes import ProcessState, Seen
from db.resharding import Resharding
from db.waiting import OpenCircuit
from worker.health.facts import Facts, Shard
from worker.health.judgement import Status, judge

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
MAIL = "invigilator.effects.email"
QUEUE = "invigilator.commands.0"
SHARD = Shard(0, QUEUE, "me", queued=5, may_be_held=False, progressed_ago_s=1.0)


def process(role: str, *queues: str, state: ProcessState = ProcessState.WORKING, silent_s: float = 3) -> Seen:
    return Seen(uuid4(), role, "host", 7, state, {"queues": list(queues)}, NOW, NOW, silent_s)


def circuit(failing_s: float) -> OpenCircuit:
    return OpenCircuit(MAIL, NOW, NOW + timedelta(seconds=30), "503", failing_s)


def webhook(off_since: datetime | None) -> Endpoint:
    return Endpoint("webhook.acme", {}, off_since, None, 0, 0, 0)


THREE_FAILED = Backlog(pending=0, running=0, failed=3, oldest_s=None)
RELAY = process("relay")
COMMANDS = process("commands", QUEUE)


def judged(**facts: Any) -> tuple[Status, str]:
    found = judge(Facts(**facts))
    return found.status, found.line


def test_a_system_that_works() -> None:
    assert judged(processes=[RELAY, COMMANDS, process("mail", MAIL)], shards=[SHARD], due=[MAIL]) == (
        0,
        "working",
    )


def test_a_system_without_work_needs_no_process() -> None:
    idle = replace(SHARD, queued=0, progressed_ago_s=5000.0)
    assert judged(shards=[idle]) == (0, "working")


@pytest.mark.parametrize(
    "readers",
    [
        [],
        [process("commands", "invigilator.commands.1")],
        [process("commands", QUEUE, silent_s=16)],
        [process("commands", QUEUE, state=ProcessState.STUCK)],
    ],
    ids=["none", "of another queue", "missing", "stuck"],
)
def test_commands_that_nobody_who_lives_reads(readers: list[Seen]) -> None:
    status, line = judged(processes=readers, shards=[SHARD])
    assert status == Status.NOT_WORKING
    assert line.startswith(f"not working: nobody reads {QUEUE} and 5 commands wait")


def test_a_shard_that_makes_no_progress() -> None:
    # The process beats, and one of its threads hangs
    stalled = replace(SHARD, progressed_ago_s=42.4)
    assert judged(processes=[COMMANDS], shards=[stalled]) == (
        2,
        "not working: shard 0 made no progress for 42 s and 5 commands wait",
    )


def test_a_shard_that_never_made_progress_has_just_been_taken() -> None:
    assert judged(processes=[COMMANDS], shards=[replace(SHARD, progressed_ago_s=None)])[0] == Status.WORKING


def test_a_consumer_that_is_not_heard_of_may_hold_what_the_broker_does_not_count() -> None:
    held = replace(SHARD, queued=0, may_be_held=True)
    status, line = judged(processes=[process("commands", QUEUE, silent_s=16)], shards=[held])
    assert (status, line.partition(";")[0]) == (
        2,
        f"not working: whoever reads {QUEUE} is stuck or missing and may hold commands",
    )
    # And one that is heard of is trusted
    assert judged(processes=[COMMANDS], shards=[held])[0] == Status.WORKING


def test_effects_need_a_worker_of_their_queue_whatever_its_role_and_a_relay() -> None:
    others = process("effects", "invigilator.effects.credit")
    assert judged(processes=[RELAY, others], due=[MAIL]) == (
        2,
        f"not working: nobody reads {MAIL} and effects are due",
    )
    assert judged(processes=[RELAY, process("anything", "x", MAIL)], due=[MAIL])[0] == Status.WORKING
    assert judged(processes=[process("mail", MAIL)], due=[MAIL]) == (
        2,
        "not working: no relay lives and effects are due",
    )


def test_events_need_a_relay() -> None:
    assert judged(has_unnumbered_events=True) == (2, "not working: no relay lives and events wait")
    assert judged(processes=[RELAY], has_unnumbered_events=True)[0] == Status.WORKING


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"backlog": {"send_status_email": THREE_FAILED}}, "3 effects failed"),
        ({"quarantined": 1}, "1 message in quarantine"),
        (
            {"circuits": [circuit(300)]},
            f"the circuit of {MAIL} is open since 2026-03-01T03:00:00Z (503; 0 effects wait)",
        ),
        (
            {"lacking": ["effects_2026_04", "events_2026_04"]},
            "there is no partition effects_2026_04, events_2026_04 (`invigilator partitions make`)",
        ),
        ({"pauses": [Pause("k", NOW, None, None)]}, "k is paused without an end"),
        ({"endpoints": [webhook(NOW)]}, "webhook.acme is switched off"),
        ({"processes": [process("mail", silent_s=16)]}, "mail on host (pid 7) is missing"),
        ({"processes": [process("mail", state=ProcessState.STUCK)]}, "mail on host (pid 7) is stuck"),
    ],
)
def test_what_needs_a_person(facts: dict[str, Any], says: str) -> None:
    assert judged(**facts) == (1, f"needs somebody: {says}")


@pytest.mark.parametrize(
    "facts",
    [
        {"pauses": [Pause("k", NOW, NOW, None)]},
        {"endpoints": [webhook(None)]},
        {"processes": [process("mail", silent_s=14)]},
        {"processes": [process("mail", state=ProcessState.STOPPING)]},
    ],
)
def test_what_needs_nobody_yet(facts: dict[str, Any]) -> None:
    assert judged(**facts) == (0, "working")


def test_a_circuit_that_has_just_opened_is_named_and_needs_nobody_yet() -> None:
    opened = f"the circuit of {MAIL} is open since 2026-03-01T03:00:00Z (503; 0 effects wait)"
    assert judged(circuits=[circuit(299)]) == (0, f"working; for now: {opened}")
    judgement = judge(Facts(circuits=[circuit(299)]))
    assert judgement.sentence == f"It works, and needs nobody yet: {opened}."


def test_an_open_circuit_comes_first_with_what_waits_for_it() -> None:
    waiting = {
        "send_status_email": Backlog(pending=4, running=1, failed=3, oldest_s=1.0),
        "set_credit_status": Backlog(pending=9, running=0, failed=0, oldest_s=1.0),
    }
    sentence = judge(Facts(circuits=[circuit(300)], backlog=waiting)).sentence
    assert sentence.startswith(f"It works, and needs somebody: the circuit of {MAIL} is open")
    assert "(503; 4 effects wait), and 3 effects failed." in sentence


def test_of_a_webhook_what_is_owed_to_it_waits() -> None:
    facts = Facts(endpoints=[Endpoint("webhook.acme", {}, None, None, behind=0, pending=7, failed=0)])
    assert facts.waiting_for("webhook.acme") == 7


def test_a_missing_process_that_another_one_covers_needs_somebody() -> None:
    missing = process("commands", QUEUE, silent_s=16)
    assert judged(processes=[missing, COMMANDS], shards=[SHARD]) == (
        1,
        "needs somebody: commands on host (pid 7) is missing",
    )


def test_both_are_said_in_one_line() -> None:
    broken = "not working: no relay lives and events wait"
    needs = "needs somebody: 3 effects failed, 1 message in quarantine"
    assert judged(has_unnumbered_events=True, backlog={"send_status_email": THREE_FAILED}, quarantined=1) == (
        2,
        f"{broken}; {needs}",
    )


# --- the number of shards ------------------------------------------------------------------------------------


GROWS = Resharding(
    id=1,
    before=2,
    after=4,
    barrier="",
    notice_s=12,
    settle_s=12,
    begun_ago_s=30,
    told_ago_s=29,
    switched_ago_s=17,
    drained={0},
    left_over=frozenset(),
)


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        (
            replace(GROWS, told_ago_s=None, switched_ago_s=None),
            "waiting for the owner of shard 0 to tell the broker",
        ),
        (replace(GROWS, told_ago_s=3, switched_ago_s=None), "publishers are told that it will change"),
        (
            replace(GROWS, switched_ago_s=None),
            "waiting for the owner of shard 0 to tell the broker the new number",
        ),
        (replace(GROWS, switched_ago_s=3), "what was published by the old number arrives"),
        (GROWS, "waiting for shard 1 to be drained"),
        (
            replace(GROWS, before=4, after=2, drained={2, 3}, left_over={3}),
            "waiting for shard 3 to be drained",
        ),
    ],
)
def test_a_change_of_the_number_of_shards_says_what_it_waits_for(change: Resharding, waits: str) -> None:
    told = f"the number of shards goes from {change.before} to {change.after}: {waits}"
    assert judged(resharding=change) == (0, f"working; for now: {told}")
    # and one that stands still needs somebody
    assert judged(resharding=replace(change, begun_ago_s=85)) == (1, f"needs somebody: {told}")
