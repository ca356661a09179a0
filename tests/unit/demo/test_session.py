"""The generated session: it is repeatable and complete, and its order is possible."""

from collections import Counter, defaultdict

import pytest

from events.commands import AttemptCreate, Command, CommandData, CourseUpsert, ExamUpsert, LearnerUpsert
from events.envelope import parse, render
from events.errors import InvalidMessageError
from events.vocabulary import OutcomeCode, QuarantineCode
from invigilator.demo.expected import expect
from invigilator.demo.malformed import Malformed, malformed_messages
from invigilator.demo.session import LEARNERS, Session, generate
from invigilator.demo.snapshot import REMOVED
from invigilator.demo.stories import STORIES, Actor
from tests.unit.demo.sessions import START
from worker.policies import Policies
from worker.rules.policy import PRESETS


@pytest.fixture(scope="module")
def session() -> Session:
    return generate("r1", seed=7, start=START)


def commands(session: Session) -> list[Command]:
    return [message for message in session.messages if isinstance(message, Command)]


def first_copies(session: Session) -> list[Command]:
    first: dict[str, Command] = {}
    for one in commands(session):
        first.setdefault(one.id, one)
    return list(first.values())


def test_is_the_same_for_the_same_seed(session: Session) -> None:
    assert generate("r1", seed=7, start=START) == session
    assert generate("r1", seed=8, start=START) != session


def test_shares_no_id_with_another_run(session: Session) -> None:
    other = generate("r2", seed=7, start=START)
    assert not set(session.exam_ids) & set(other.exam_ids)
    assert not set(session.learner_ids) & set(other.learner_ids)
    assert not {one.id for one in commands(session)} & {one.id for one in commands(other)}
    assert (session.source, session.course_id, session.mail_domain) != (
        other.source,
        other.course_id,
        other.mail_domain,
    )


def test_has_four_exams_one_for_practice_and_one_timed_and_at_least_200_learners(session: Session) -> None:
    exams = {one.data.exam_id: one.data for one in commands(session) if isinstance(one.data, ExamUpsert)}
    assert len(exams) == len(session.exam_ids) == 4
    assert sum(exam.is_practice_exam for exam in exams.values()) == 1
    assert [exam.time_limit_mins for exam in exams.values() if not exam.is_proctored] == [90]
    assert len(session.learner_ids) == LEARNERS >= 200


def test_every_command_is_valid(session: Session) -> None:
    for one in commands(session):
        assert parse(render(one)) == one


def test_everybody_is_announced_before_anything_else(session: Session) -> None:
    announced: set[str] = set()
    for one in commands(session):
        if isinstance(one.data, LearnerUpsert):
            announced.add(one.data.user_id)
        elif not isinstance(one.data, CourseUpsert | ExamUpsert):
            assert one.data.learner_id in announced | {"r1-stranger"}


def test_a_learners_commands_keep_the_order_of_their_story(session: Session) -> None:
    by_learner: defaultdict[str | None, list[CommandData]] = defaultdict(list)
    for one in first_copies(session):
        by_learner[one.data.learner_id].append(one.data)
    for learner in session.learner_ids:
        _, *story = by_learner[learner]
        assert story in [write(Actor(learner, session.course_id)) for write in STORIES.values()]


def test_every_command_of_a_well_made_lms_names_its_attempt() -> None:
    careless = {"confused"}
    for name, write in STORIES.items():
        for data in write(Actor("ada", "demo-r1")):
            is_named = getattr(data, "attempt_code", None) or getattr(data, "external_id", None)
            if isinstance(data, AttemptCreate) or name not in careless:
                # The LMS does not know the code of an attempt that a cascade has created.
                assert is_named or getattr(data, "from_statuses", None), name


def test_some_commands_come_twice_and_some_ids_are_used_again(session: Session) -> None:
    copies = Counter((one.id, one.fingerprint()) for one in commands(session))
    assert 50 < copies.total() - len(copies) < 200
    assert len(copies) - len(first_copies(session)) == 4


@pytest.mark.parametrize("policy", ["provider", "platform"])
def test_everything_that_can_happen_happens(session: Session, policy: str) -> None:
    snapshot = expect(session, Policies(PRESETS[policy]), instructor=True)
    codes = {outcome.partition(" ")[2] for outcome in snapshot.outcomes.values()}
    # The first two ask for a policy of its own, the third for descriptions with times.
    assert codes >= set(OutcomeCode) - {
        OutcomeCode.LATE_TIMEOUT,
        OutcomeCode.VERDICT_PROTECTED,
        OutcomeCode.OVERTAKEN,
    }
    assert ("unchanged" in snapshot.outcomes.values()) == (policy == "provider")
    signing = {QuarantineCode.BAD_SIGNATURE, QuarantineCode.NOT_ALLOWED}  # which the demo runs without
    never = {QuarantineCode.FAILED, QuarantineCode.WRONG_SHARD}  # unless something is wrong
    assert set(snapshot.quarantine) == set(QuarantineCode) - never - signing
    assert set(snapshot.credit.values()) == {"satisfied", "submitted", "failed"}
    assert snapshot.mails
    assert snapshot.deletions
    assert len(snapshot.effects) == 5
    assert any(len(lives) == 2 and lives[0][-1] == REMOVED for lives in snapshot.histories.values())
    assert snapshot.unfinished == {}


def test_malformed_messages_are_what_they_say_and_can_be_recognised() -> None:
    for message in malformed_messages("r1"):
        with pytest.raises(InvalidMessageError) as caught:
            parse(message.body)
        assert caught.value.reason == message.code
        assert b"r1" in message.body


def test_malformed_messages_are_in_the_session(session: Session) -> None:
    found = [message for message in session.messages if isinstance(message, Malformed)]
    assert Counter(found) == Counter(malformed_messages("r1"))


def test_a_session_without_room_for_every_story_is_refused() -> None:
    with pytest.raises(ValueError, match="at least"):
        generate("r1", seed=7, start=START, learners=3)
