"""The Celery application: its tasks, its labels, its way to the broker."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.exceptions import Retry
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.pool import QueuePool
from structlog.typing import EventDict

from db.offers import Offer
from events.broker_url import Kind
from invigilator.local import announcement, single_instance
from tests.integration.effects.conftest import Bench
from tests.integration.effects.test_runner import submitted
from tests.zones import no_time_zones
from worker import app as module
from worker import engines
from worker.celery.dispatcher import CeleryDispatcher
from worker.celery.queues import effect_queues
from worker.celery.results import NothingToDo
from worker.commands.sources.brokers import BROKERS
from worker.effects.answers import label
from worker.errors import Permanent, Transient, TryFailedError
from worker.feeds.comparison import Comparison
from worker.kinds import QUEUES, EffectKind

TASKS = {f"effects.{kind}" for kind in EffectKind}


@pytest.fixture
def celery(valkey_url: str) -> Iterator[object]:
    """An application of its own on the test's broker."""
    app = Celery("test", set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.task_queues = effect_queues("classic")
    app.conf.broker_url = valkey_url
    app.conf.broker_transport_options = dict(BROKERS[Kind.REDIS].celery_options)
    yield app
    app.close()


@pytest.fixture(autouse=True)
def _broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1/0")  # nothing connects to it


def test_each_kind_has_its_task_and_its_queue() -> None:
    assert {name for name in module.app.tasks if name.startswith("effects.")} == TASKS
    routes = {name: route["queue"] for name, route in module.app.conf.task_routes.items()}
    assert routes == {f"effects.{kind}": queue for kind, queue in QUEUES.items()}
    assert module.app.conf.accept_content == ["json"]


@pytest.mark.parametrize(("form", "is_left_out"), [("json", True), ("readable", False)])
def test_celerys_banner_is_for_people(monkeypatch: pytest.MonkeyPatch, form: str, is_left_out: bool) -> None:
    monkeypatch.setenv("INVIGILATOR_LOG_FORMAT", form)
    worker = SimpleNamespace(quiet=False)
    module.leave_out_the_banner(instance=worker)
    assert worker.quiet is is_left_out


def test_the_threads_of_a_worker_share_what_would_store_results() -> None:
    module.make_the_backend()
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: module.app.backend).result() is module.app.backend


def test_the_tasks_run_their_effect(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an effect, and a worker's tasks
    monkeypatch.setattr(module, "process_runner", bench.runner)
    effect_id = submitted(bench)
    row = bench.row(effect_id)
    trail = f"effect {effect_id} · command {row.source} {row.command_id}"
    tasks = module.app.tasks
    # When its own runs it, the answer leads to the effect and its command
    shown = "credit submitted · exam A · learner 42"
    done = tasks["effects.set_credit_status"](str(effect_id))
    assert done == f"{shown} · try 1: done · {trail}"
    assert bench.row(effect_id).state == "done"
    # and whatever finds nothing to do is ignored, for a reason
    for name in TASKS:
        with pytest.raises(NothingToDo) as ignored:
            tasks[name](str(effect_id))
        assert repr(ignored.value).endswith(f" · {shown} · {trail}")


def test_a_try_that_will_be_made_again_is_no_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_runner", bench.runner)
    effect_id = submitted(bench)
    task = module.app.tasks["effects.set_credit_status"]
    bench.credit.fail_with(Transient("LMS answered 503"), Permanent("LMS answered 400"))
    with pytest.raises(Retry, match=rf"try 1: LMS answered 503 · effect {effect_id} · command "):
        task(str(effect_id))
    bench.make_due()
    with pytest.raises(TryFailedError, match=rf"try 2: LMS answered 400 · effect {effect_id} · command "):
        task(str(effect_id))
    with pytest.raises(NothingToDo, match="failed: use effects retry"):
        task(str(effect_id))


def test_a_worker_with_wrong_settings_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "mysql://localhost/x")
    with pytest.raises(
        SystemExit, match="invigilator: INVIGILATOR_DATABASE_URL must start with postgresql://"
    ):
        module.start(sender=SimpleNamespace(concurrency=4))


def test_a_worker_with_wrong_policies_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("INVIGILATOR_POLICIES_FILE", "/nowhere.toml")
    with pytest.raises(SystemExit, match=r"invigilator: policies file /nowhere\.toml: cannot be read"):
        module.start(sender=SimpleNamespace(concurrency=4))


def test_a_worker_starts_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_runner", None)
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    module.start(sender=SimpleNamespace(concurrency=4))
    assert module.process_runner is not None


def test_a_worker_that_has_looked_at_the_database_keeps_no_connection(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Celery's default pool forks, and processes cannot share one
    monkeypatch.setattr(module, "process_runner", None)
    monkeypatch.setenv("INVIGILATOR_DATABASE_URL", database_url)
    module.start(sender=SimpleNamespace(concurrency=4))
    assert module.process_runner is not None
    pool = module.process_runner.tools.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 0


OWN = {
    "DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:1/none",
    "BROKER_URL": "redis://:secret@127.0.0.1:1/0",
}
LMS = {"LMS_URL": "https://lms.invalid"}
SMTP = {"SMTP_URL": "smtp://mail.invalid"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (OWN, ["LMS_URL", "SMTP_URL"]),
        (OWN | LMS, ["SMTP_URL"]),
        (OWN | SMTP, ["LMS_URL"]),
        (OWN | LMS | SMTP, []),
    ],
    ids=["both", "mails", "credit", "none"],
)
def test_a_worker_says_at_its_start_what_is_only_logged(
    settings: dict[str, str],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[EventDict],
) -> None:
    for name, value in {**settings, "DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    module.warn()
    assert [line["setting"] for line in logged] == [f"INVIGILATOR_{name}" for name in expected]
    assert {line["event"] for line in logged} <= {"a service is only logged"}


def test_a_worker_says_at_its_start_that_there_are_no_time_zones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    for name, value in {**OWN, **LMS, **SMTP, "DATA_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    with no_time_zones():
        module.warn()
    [line] = logged
    assert line["reason"].startswith(
        "this system knows no time zones, so mails tell times in UTC: install tzdata"
    )


def test_a_worker_on_embedded_engines_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    # Given a system whose engines are embedded, and a process of it that has their addresses by its environment
    with single_instance.hold(tmp_path):
        announcement.announce(tmp_path, engines.Engines(OWN["DATABASE_URL"], OWN["BROKER_URL"]))
        for name, value in {**OWN, "DATA_DIR": str(tmp_path)}.items():
            monkeypatch.setenv(f"INVIGILATOR_{name}", value)
        module.warn()
        assert logged == []
        # When one of both is not
        monkeypatch.setenv("INVIGILATOR_BROKER_URL", "redis://127.0.0.1:1/0")
        module.warn()
        assert logged == []
        # or neither
        monkeypatch.setenv("INVIGILATOR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
        module.warn()
        assert len(logged) == 2
    # and what a system has left that does not run any more is nobody's
    logged.clear()
    for name, value in OWN.items():
        monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    module.warn()
    assert len(logged) == 2


def test_a_worker_compares_its_file_of_subscriptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "subscriptions.toml"
    file.write_text("[api]\n")
    for name, value in {**OWN, "DATA_DIR": str(tmp_path), "SUBSCRIPTIONS_FILE": str(file)}.items():
        monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    compared = SimpleQueue[Comparison]()
    monkeypatch.setattr(Comparison, "run", lambda self, stopping: compared.put(self))
    module.warn()
    ran = compared.get(timeout=60)
    assert (ran.file, ran.subscriptions.definitions()) == (file, {"api": {}})


def test_a_data_folder_of_somebody_else_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    (tmp_path / "file").touch()
    for name, value in {**OWN, "DATA_DIR": str(tmp_path / "file")}.items():
        monkeypatch.setenv(f"INVIGILATOR_{name}", value)
    module.warn()
    assert len(logged) == 2


def test_an_offer_becomes_a_message_without_personal_data(
    bench: Bench, celery: Celery, valkey_url: str
) -> None:
    # Given an effect that is owed
    effect_id = submitted(bench)
    offer = Offer(effect_id, EffectKind.SET_CREDIT_STATUS, bench.row(effect_id).payload, 2)
    queue = QUEUES[offer.kind]
    # When it is offered
    dispatcher = CeleryDispatcher(celery)
    dispatcher.dispatch([offer])
    # Then its message says what a person needs to read in Flower, and nothing of the learner but the id
    assert dispatcher.queue_length(queue) == 1
    with Redis.from_url(valkey_url) as client:
        envelope = json.loads(client.lindex(queue, 0))
    assert envelope["headers"]["task"] == "effects.set_credit_status"
    assert envelope["headers"]["argsrepr"] == f"credit submitted · exam A · learner 42 · try 3 · {effect_id}"
    assert json.loads(base64.b64decode(envelope["body"]))[0] == [str(effect_id)]
    for secret in ("user-42", "u42@example.org", "Ada"):
        assert secret not in json.dumps(envelope)


def test_an_offer_costs_the_broker_one_message_and_nothing_else(celery: Celery, valkey_url: str) -> None:
    # Given a dispatcher that has connected
    dispatcher = CeleryDispatcher(celery)
    queue = QUEUES[EffectKind.CASCADE_DECLINE]
    assert dispatcher.queue_length(queue) == 0
    with Redis.from_url(valkey_url) as client:
        before = commands(client)
        # When it looks at the queue and sends offers
        assert dispatcher.queue_length(queue) == 0
        dispatcher.dispatch(
            [Offer(UUID(int=number), EffectKind.CASCADE_DECLINE, PAYLOAD, 0) for number in range(100)]
        )
        # Then that is one question, and one message for each offer, all in one reading
        assert commands(client) - before == Counter(llen=1, multi=1, exec=1, lpush=100)
        assert client.llen(queue) == 100
        assert [key for key in client.scan_iter() if not key.startswith(b"_kombu.")] == [queue.encode()]


def test_nothing_is_waited_for_between_two_offers(celery: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = CeleryDispatcher(celery)
    dispatcher.queue_length(QUEUES[EffectKind.CASCADE_DECLINE])
    executed: list[int] = []
    execute = Pipeline.execute

    def recorded(self: Pipeline) -> Any:
        executed.append(len(self))
        return execute(self)

    monkeypatch.setattr(Pipeline, "execute", recorded)
    dispatcher.dispatch([Offer(EFFECT_ID, EffectKind.CASCADE_DECLINE, PAYLOAD, 0)] * 100)
    assert executed == [100]


def commands(client: Redis) -> Counter[str]:
    """How often each command was called, but for those that ask about it."""
    stats = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): each["calls"] for name, each in stats.items()}) - Counter(
        info=10**9
    )


def test_a_broker_that_goes_away_between_looking_and_sending_is_transient(
    celery: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a dispatcher that has connected
    dispatcher = CeleryDispatcher(celery)
    dispatcher.queue_length(QUEUES[EffectKind.CASCADE_DECLINE])
    # When the broker goes away while it takes the offers
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "execute", raiser(RedisConnectionError("gone")))
        with pytest.raises(Transient, match="the broker is away: ConnectionError"):
            dispatcher.dispatch([Offer(EFFECT_ID, EffectKind.CASCADE_DECLINE, PAYLOAD, 0)])
    # Then the next offers are sent
    dispatcher.dispatch([Offer(EFFECT_ID, EffectKind.CASCADE_DECLINE, PAYLOAD, 0)])
    assert dispatcher.queue_length(QUEUES[EffectKind.CASCADE_DECLINE]) == 1


def raiser(error: Exception) -> Any:
    def raises(*_: object, **__: object) -> None:
        raise error

    return raises


def test_a_broker_that_is_away_is_transient(celery: Celery) -> None:
    celery.conf.broker_url = "redis://127.0.0.1:1/0"
    celery.conf.broker_transport_options = {"max_retries": 0}
    offer = Offer(EFFECT_ID, EffectKind.CASCADE_DECLINE, PAYLOAD, 0)
    with pytest.raises(Transient, match="the broker is away"):
        CeleryDispatcher(celery).dispatch([offer])
    with pytest.raises(Transient, match="the broker is away"):
        CeleryDispatcher(celery).queue_length("x")


def test_a_channel_that_kombu_has_closed_is_transient(celery: Celery) -> None:
    # Given kombu going on with a channel that it has closed, as it sometimes does when the server goes away
    dispatcher = CeleryDispatcher(celery)
    queue = QUEUES[EffectKind.CASCADE_DECLINE]

    def closed(channel: Any) -> Any:
        channel.close()
        return channel.client

    bound = celery.amqp.queues[queue]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(bound), "bind", lambda _, channel: closed(channel))
        with pytest.raises(Transient, match="the broker is away: AttributeError"):
            dispatcher.queue_length(queue)
    # Then the next look has a connection of its own
    assert dispatcher.queue_length(queue) == 0


EFFECT_ID = UUID(int=7)
PAYLOAD = {"exam_id": "A", "user_id": "42", "course_id": "c", "content_id": "x"}


@pytest.mark.parametrize(
    ("kind", "status", "shown"),
    [
        (EffectKind.SET_CREDIT_STATUS, "failed", "credit failed"),
        (EffectKind.REMOVE_CREDIT_STATUS, None, "credit removed"),
        (EffectKind.CASCADE_DECLINE, None, "cascade decline"),
        (EffectKind.SEND_STATUS_EMAIL, "verified", "mail verified"),
        (EffectKind.DELETE_STUDENT_ATTEMPT, None, "delete student attempt"),
    ],
)
def test_labels(kind: EffectKind, status: str | None, shown: str) -> None:
    assert label(kind, {**PAYLOAD, "status": status}, 1) == f"{shown} · exam A · learner 42 · try 1"
