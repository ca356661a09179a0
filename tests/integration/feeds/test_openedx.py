"""The event bus of an Open edX site: what its stream gets, what is skipped, and what comes after a wiped server."""

import re
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine
from structlog.typing import EventDict

from db import erasure, subscribers
from events.commands import CommandData, ExamUpsert, LearnerUpsert
from tests import sample_commands as c
from tests.integration.effects.conftest import until
from tests.integration.feeds.conftest import number
from tests.integration.feeds.test_feeds import standing
from tests.loops import running
from worker.commands.handler import Handler
from worker.feeds.base import OvertakenError, Publication
from worker.feeds.brokers import open_bus
from worker.feeds.openedx import OpenEdxFormat
from worker.feeds.openedx_data import schema
from worker.feeds.publisher import FeedPublisher
from worker.feeds.redis import epoch_key
from worker.policies import Policies
from worker.subscribers import OpenEdx
from worker.subscriptions import Subscriptions

ROOT = Path(__file__).parents[3]
NAME = "openedx.lms"
COURSE = "course-v1:edX+DemoX+2026"
TYPE = "org.openedx.learning.exam.attempt."
FIELDS = {"type", "id", "source", "time", "minorversion", "sourcehost", "sourcelib", "event_data"}

_topics = count(1)


def content(block: str) -> str:
    return f"block-v1:edX+DemoX+2026+type@sequential+block@{block}"


def exam(exam_id: str, **other: Any) -> ExamUpsert:
    return c.exam(exam_id, **{"course_id": COURSE, "content_id": content(exam_id), **other})


ADA = LearnerUpsert(user_id="42", username="ada", email="ada@example.org", full_name="Ada Lovelace")
GRACE = LearnerUpsert(user_id="7", username="grace", email="grace@example.org")
STAFF = LearnerUpsert(user_id="staff-1", username="stan", email="stan@example.org")


class Site:
    """An Open edX site's stream, and an Invigilator whose record has exams and learners."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.client: Any = Redis.from_url(url)  # parts of it have no types
        self.bus = OpenEdx(redis=SecretStr(url), topic=f"dev-exams-{next(_topics)}")
        self.handler = Handler(Policies(), instructor=True)
        with engine.begin() as connection:
            subscribers.store(connection, Subscriptions(openedx={"lms": self.bus}).definitions())
        self.handle(
            exam("A"), exam("P", is_practice_exam=True), exam("T", is_proctored=False), ADA, GRACE, STAFF
        )

    def handle(self, *data: CommandData) -> None:
        """Handle commands, and number what they tell."""
        with self.engine.begin() as connection:
            c.handle(self.handler, connection, [c.received(one) for one in data])
        number(self.engine)

    def publisher(self) -> FeedPublisher:
        return FeedPublisher(
            name=NAME,
            format=OpenEdxFormat(self.engine, "/invigilator/main"),
            owner="me",
            engine=self.engine,
            open_target=partial(open_bus, self.bus),
            lease_s=60,
        )

    def publish(self) -> list[dict[str, Any]]:
        """Publish all that waits; return everything that the stream has: the attributes, and the data decoded."""
        with running(self.publisher().run):
            until(lambda: standing(self.engine).behind == 0)
        return self.entries()

    def entries(self) -> list[dict[str, Any]]:
        return [_decoded(fields) for _, fields in self.client.xrange(self.bus.topic)]

    def wipe(self) -> None:
        self.client.delete(self.bus.topic, epoch_key(self.bus.topic))


def _decoded(fields: dict[bytes, bytes]) -> dict[str, Any]:
    data = fields[b"event_data"]
    entry: dict[str, Any] = {name.decode(): value.decode() for name, value in fields.items() if value != data}
    read: Any = schemaless_reader(BytesIO(data), parse_schema(schema(entry["type"])), None)
    return entry | {"event_data": read["exam_attempt"]}


@pytest.fixture
def site(engine: Engine, valkey_url: str) -> Iterator[Site]:
    site = Site(engine, valkey_url)
    yield site
    site.wipe()
    site.client.close()


def types(entries: list[dict[str, Any]]) -> list[str]:
    return [one["type"].removeprefix(TYPE).removesuffix(".v1") for one in entries]


def test_the_five_types_in_order(site: Site) -> None:
    # Given attempts that go through every status
    site.handle(
        c.create("A", taking_as_proctored=True),
        *(c.update("A", status) for status in ("started", "submitted", "second_review_required", "rejected")),
        c.update("A", "verified"),
        c.create("T", "7"),
        c.update("T", "error", "7"),
        c.create("P"),
        c.update("P", "declined"),
        c.remove("P", requested_by="7"),
    )
    # When they are published
    entries = site.publish()
    # Then the bus has what it has a type for, each with all fields, as the log has it
    assert types(entries) == ["submitted", "rejected", "verified", "errored", "reset"]
    assert {frozenset(one) for one in entries} == {frozenset(FIELDS)}
    assert {(one["source"], one["minorversion"]) for one in entries} == {("/invigilator/main", "0")}
    with site.engine.begin() as connection:
        logged = connection.exec_driver_sql("SELECT id::text, time FROM events ORDER BY position").all()
    times = {row.id: row.time.isoformat() for row in logged}
    assert all(times[one["id"]] == one["time"] for one in entries)
    submitted, *_, errored, reset = (one["event_data"] for one in entries)
    ada = {"id": 42, "is_active": True, "pii": _pii("ada", "Ada Lovelace")}
    grace = {"id": 7, "is_active": True, "pii": _pii("grace", "")}
    assert submitted == {
        "student_user": ada,
        "course_key": COURSE,
        "usage_key": content("A"),
        "exam_type": "proctored",
        "requesting_user": ada,
    }
    assert (errored["exam_type"], errored["student_user"], errored["requesting_user"]) == (
        "timed",
        grace,
        grace,
    )
    assert (reset["exam_type"], reset["student_user"], reset["requesting_user"]) == ("practice", ada, grace)


def _pii(username: str, name: str) -> dict[str, str]:
    return {"username": username, "email": f"{username}@example.org", "name": name}


def test_whoever_the_bus_cannot_name_is_the_learner(site: Site) -> None:
    # Given removals that were asked for by nobody, by somebody unknown, and by a learner without a number
    for requested_by in (None, "Mr. Somebody", "99", "staff-1"):
        site.handle(c.create("A"), c.remove("A", requested_by=requested_by))
    resets = [one["event_data"] for one in site.publish()]
    assert [one["requesting_user"]["id"] for one in resets] == [42] * 4


def test_names_are_those_of_the_moment_and_stay_out_of_the_log(site: Site) -> None:
    site.handle(c.create("A"), c.update("A", "submitted"))
    site.handle(LearnerUpsert(user_id="42", username="countess", email="countess@example.org"))
    [entry] = site.publish()
    assert entry["event_data"]["student_user"]["pii"] == _pii("countess", "Ada Lovelace")
    with site.engine.begin() as connection:
        kept = connection.exec_driver_sql(
            "SELECT string_agg(events::text, '') || (SELECT string_agg(subscribers::text, '') FROM subscribers)"
            " FROM events"
        ).scalar_one()
    assert not [word for word in ("ada@", "Ada", "Lovelace", "countess", "example.org") if word in kept]
    assert site.bus.redis.get_secret_value() not in kept


def test_an_erased_learner_is_known_by_the_number_alone(site: Site) -> None:
    # Given an event that waits while its learner is erased
    site.handle(c.create("A"), c.update("A", "submitted"))
    with site.engine.begin() as connection:
        assert erasure.erase(connection, "42", mail_kind="send_status_email", reason="request 7")
    [entry] = site.publish()
    user = entry["event_data"]["student_user"]
    assert (user["id"], user["pii"]) == (42, {"username": "erased-42", "email": "", "name": ""})


def test_what_the_bus_cannot_carry_is_skipped_and_counted(site: Site, logged: list[EventDict]) -> None:
    # Given attempts, of which the bus can carry the last one only
    unfit = [exam("B", course_id="phys"), exam("C", content_id="content-C")]
    site.handle(*unfit, *(c.create(one) for one in "ABC"), c.create("A", "staff-1"))
    site.handle(
        *(c.update(one, "submitted") for one in "BC"),
        c.update("A", "submitted", "staff-1"),
        c.update("C", "verified"),
        c.update("A", "submitted"),
    )
    # When they are published
    entries = site.publish()
    # Then nothing is held up, and it is told how many were skipped, by ids
    assert types(entries) == ["submitted"]
    assert (standing(site.engine).behind, standing(site.engine).skipped) == (0, 4)
    [warning] = [line for line in logged if line["event"] == "events skipped"]
    assert warning["subscriber"] == NAME
    assert warning["reason"].startswith("skipped 4, such as event ")
    assert warning["reason"].endswith(": its course_id is no course key")
    assert warning["reason"] == standing(site.engine).reason
    # And those of a replay are counted again
    with site.engine.begin() as connection:
        assert subscribers.replay(connection, NAME, 0) is None
    assert types(site.publish()) == ["submitted", "submitted"]
    assert standing(site.engine).skipped == 8


def test_after_a_wipe_a_replay_brings_the_same_again(site: Site) -> None:
    site.handle(c.create("A"), c.update("A", "submitted"), c.update("A", "verified"))
    before = site.publish()
    site.wipe()
    with site.engine.begin() as connection:
        assert subscribers.replay(connection, NAME, 0) is None
    assert site.publish() == before
    assert types(before) == ["submitted", "verified"]


def test_a_publisher_that_wakes_up_late_adds_nothing(site: Site) -> None:
    one = Publication("id", f"{TYPE}submitted.v1", b"data", {"id": "id"})
    with open_bus(site.bus) as late, open_bus(site.bus) as successor:
        late.publish([one], epoch=1)
        successor.publish([one], epoch=2)
        with pytest.raises(OvertakenError):
            late.publish([one], epoch=1)
    assert site.client.xlen(site.bus.topic) == 2


def test_a_topic_that_is_no_stream_is_named(site: Site) -> None:
    site.client.set(site.bus.topic, "something else")
    site.handle(c.create("A"), c.update("A", "submitted"))
    with running(site.publisher().run):
        until(lambda: standing(site.engine).reason is not None)
    assert "WRONGTYPE" in str(standing(site.engine).reason)
    site.wipe()
    assert types(site.publish()) == ["submitted"]


def test_the_rights_of_the_page_are_enough(site: Site) -> None:
    # Given the Redis user of docs/openedx.md, for the stream of this test
    [line] = re.findall(r"^ACL SETUSER .*$", (ROOT / "docs/openedx.md").read_text(), re.MULTILINE)
    site.client.execute_command(*line.replace("prod-learning-exam-attempt-lifecycle", site.bus.topic).split())
    try:
        # When the relay is that user, then it publishes
        own = site.bus.redis.get_secret_value()
        url = re.sub(r"//(.*@)?", "//invigilator:password@", own)
        site.bus = site.bus.model_copy(update={"redis": SecretStr(url)})
        site.handle(c.create("A"), c.update("A", "submitted"))
        assert types(site.publish()) == ["submitted"]
    finally:
        site.client.acl_deluser("invigilator")
