"""One trace from a publisher's `traceparent` through batch, effect, try and call."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import Engine, text

from db import shards
from db.connect import make_engine
from db.ids import new_receipt
from db.prepared import SESSION_SETTINGS
from db.quarantine import Unreadable
from db.shards import Fence
from events.commands import CommandData
from events.vocabulary import QuarantineCode
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench
from tests.spans import named, recording
from tests.unit.events.messages import TRACE
from worker.commands.batches import Batches
from worker.commands.decoding import Received
from worker.commands.handler import Handler, ShardLostError
from worker.commands.spans import Item
from worker.errors import Transient, TryFailedError
from worker.kinds import EffectKind
from worker.policies import Policies

COMMANDS = "invigilator.commands.0"
CREDIT = "invigilator.effects.credit"
CASCADES = "invigilator.effects.cascade"
LEASE_S = 60


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recording() as exporter:
        yield exporter


@pytest.fixture
def bench(engine: Engine) -> Bench:
    bench = Bench(engine)
    bench.apply(c.course(), c.exam("A"), c.exam("B"), c.exam("C"), c.learner())
    return bench


@pytest.fixture
def fence(engine: Engine) -> Fence:
    with engine.begin() as connection:
        shards.ensure_shards(connection, 1)
        fence = shards.take(connection, 0, "me", LEASE_S)
    assert fence is not None
    return fence


def traced(data: CommandData, traceparent: str | None) -> Received:
    received = c.received(data)
    return replace(received, command=replace(received.command, traceparent=traceparent))


def batches(engine: Engine) -> Batches:
    return Batches(engine, Handler(Policies(), instructor=True), LEASE_S)


def trace(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else f"{span.parent.span_id:016x}"


def said(span: ReadableSpan, name: str) -> Any:
    assert span.attributes is not None
    return span.attributes.get(name)


def test_a_batch_has_a_span_and_so_has_each_command(
    engine: Engine, fence: Fence, spans: InMemorySpanExporter
) -> None:
    # Given commands of a trace and of none, one that comes twice, and what is no command
    twice = traced(c.learner(), TRACE)
    unreadable = Unreadable(QuarantineCode.NOT_JSON, "is no JSON", {}, b"?", new_receipt().at)
    items: list[Item] = [traced(c.exam("A"), None), twice, twice, traced(c.create("B"), TRACE), unreadable]
    # When they are committed
    batches(engine).commit(fence, items)
    # Then each command has one span, in the trace of its publisher, with its outcome
    exam, learner, create = named(spans, f"process {COMMANDS}")
    assert (trace(learner), parent(learner)) == (TRACE.split("-")[1], TRACE.split("-")[2])
    assert trace(create) == trace(learner) != trace(exam)
    assert parent(exam) is None
    assert [said(one, "invigilator.outcome") for one in (exam, learner, create)] == [
        "applied",
        "applied",
        "rejected",
    ]
    assert said(create, "invigilator.code") == "exam_not_found"
    assert said(create, "cloudevents.event_type") == "exam.attempt.create.v1"
    assert {said(one, "messaging.system") for one in (exam, learner, create)} == {"redis"}
    # and the batch has a trace of its own, with a link to each
    [batch] = named(spans, f"receive {COMMANDS}")
    assert (batch.kind, said(batch, "messaging.batch.message_count")) == (SpanKind.CONSUMER, 5)
    assert parent(batch) is None
    assert [f"{link.context.span_id:016x}" for link in batch.links] == [
        span_id(one) for one in (exam, learner, create)
    ]


COLLIDE_TWICE = """
CREATE SEQUENCE collisions;
CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('collisions') <= 2 THEN
        RAISE EXCEPTION USING ERRCODE = 'deadlock_detected';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER collides AFTER INSERT ON outcomes EXECUTE FUNCTION collide()
"""


def test_what_was_not_written_has_no_span(
    database_url: str, bench: Bench, fence: Fence, spans: InMemorySpanExporter
) -> None:
    # Given a batch that collides with others when it writes
    with bench.engine.begin() as connection:
        connection.exec_driver_sql(COLLIDE_TWICE)
    ours = make_engine(database_url, application_name="tests", session_settings=SESSION_SETTINGS)
    # When it is run again until it is written
    batches(ours).commit(fence, [traced(c.create("A"), TRACE), traced(c.update("A", "submitted"), TRACE)])
    ours.dispose()
    # Then only the effects that are there have spans
    owed = [str(one) for one in bench.ids(EffectKind.SET_CREDIT_STATUS)]
    assert [said(one, "messaging.message.id") for one in named(spans, f"owe {CREDIT}")] == owed


def test_one_trace_leads_from_the_publisher_to_the_call(
    bench: Bench, fence: Fence, spans: InMemorySpanExporter
) -> None:
    # Given a command of a trace, which owes a credit
    made = traced(c.create("A", taking_as_proctored=True), TRACE)
    batches(bench.engine).commit(fence, [made, traced(c.update("A", "submitted"), TRACE)])
    [effect_id] = bench.ids(EffectKind.SET_CREDIT_STATUS)
    # When its first try fails, and the second one is made
    bench.credit.fail_with(Transient("LMS answered 503"))
    with pytest.raises(TryFailedError):
        bench.run(effect_id)
    bench.make_due()
    bench.run(effect_id)
    # Then the effect is a child of the command, and each try one of the effect
    _, update = named(spans, f"process {COMMANDS}")
    [owed] = [
        one for one in named(spans, f"owe {CREDIT}") if said(one, "messaging.message.id") == str(effect_id)
    ]
    failed, done = named(spans, f"try {CREDIT}")
    assert {trace(one) for one in (update, owed, failed, done)} == {TRACE.split("-")[1]}
    assert parent(owed) == span_id(update)
    assert parent(failed) == parent(done) == span_id(owed)
    assert (owed.kind, done.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert [said(one, "invigilator.number") for one in (failed, done)] == [1, 2]
    assert (failed.status.status_code, said(failed, "error.type")) == (StatusCode.ERROR, "TryAgainError")
    assert done.status.status_code is StatusCode.UNSET
    assert said(done, "invigilator.attempt") == said(update, "invigilator.attempt") != None  # noqa: E711
    # and the call carries the second try on
    carried = bench.credit.calls[-1].key.origin.traceparent  # type: ignore[union-attr]
    assert carried is not None
    assert carried.split("-")[1:3] == [TRACE.split("-")[1], span_id(done)]
    # No span holds a name or an address
    assert "example.org" not in "".join(one.to_json() for one in spans.get_finished_spans())
    assert "Lovelace" not in "".join(one.to_json() for one in spans.get_finished_spans())


def test_what_a_cascade_changes_is_in_its_trace(
    bench: Bench, fence: Fence, spans: InMemorySpanExporter
) -> None:
    made = traced(c.create("A", taking_as_proctored=True), TRACE)
    batches(bench.engine).commit(fence, [made, traced(c.update("A", "declined"), TRACE)])
    [cascade] = bench.ids(EffectKind.CASCADE_DECLINE)
    before = len(named(spans, f"owe {CREDIT}"))
    bench.run(cascade)
    # Then the siblings' effects are children of the cascade's, whoever carries it out
    [owed] = named(spans, f"owe {CASCADES}")
    [tried] = named(spans, f"try {CASCADES}")
    siblings = named(spans, f"owe {CREDIT}")[before:]
    assert siblings
    assert {trace(one) for one in (*siblings, tried)} == {TRACE.split("-")[1]}
    assert {parent(one) for one in (*siblings, tried)} == {span_id(owed)}


def test_what_was_not_committed_has_no_span(
    engine: Engine, fence: Fence, spans: InMemorySpanExporter
) -> None:
    # Given a shard that somebody else has taken
    with engine.begin() as connection:
        connection.execute(text("UPDATE shards SET epoch = epoch + 1"))
    # When the old owner comes with a batch
    with pytest.raises(ShardLostError):
        batches(engine).commit(fence, [traced(c.exam("A"), TRACE)])
    # Then it has no span
    assert spans.get_finished_spans() == ()


def test_without_traces_the_effect_has_the_trace_of_its_command(bench: Bench, fence: Fence) -> None:
    made = traced(c.create("A", taking_as_proctored=True), TRACE)
    batches(bench.engine).commit(fence, [made, traced(c.update("A", "submitted"), TRACE)])
    ids: list[UUID] = bench.ids()
    assert {bench.row(one).traceparent for one in ids} == {TRACE}
