"""`/metrics`: every metric is what the database says, and Prometheus's own tool reads all that we ship for it."""

import asyncio
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from db.backlog import Backlog
from db.deliveries import Endpoint
from db.pauses import Pause
from db.processes import Seen
from db.waiting import OpenCircuit
from invigilator.web import metrics as module
from invigilator.web import shared_facts
from invigilator.web.metrics import Metrics
from invigilator.web.problems import ProblemError
from invigilator.web.shared_facts import SharedFacts
from tests import sample_commands as c
from tests.engines import unavailable
from tests.integration.effects.conftest import until
from tests.integration.web.conftest import Api
from worker.commands.sources.base import BrokerAwayError
from worker.health.facts import Facts, Shard
from worker.kinds import EffectKind
from worker.threads import QUESTION

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/invigilator.json"
NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
MAIL = EffectKind.SEND_STATUS_EMAIL


def process(role: str, silent_s: float) -> Seen:
    return Seen(uuid4(), role, "host", 7, "working", {"queues": []}, NOW, NOW, silent_s)


FACTS = Facts(
    processes=[process("commands", 2), process("commands", 99), process("relay", 99)],
    shards=[Shard(0, "q", "me", queued=7, may_be_held=False, progressed_ago_s=65.0)],
    backlog={MAIL: Backlog(pending=3, running=1, failed=2, oldest_s=30.0)},
    quarantined=4,
    lacking=["effects_2026_04", "events_2026_04"],
    circuits=[OpenCircuit("webhook.acme", NOW, NOW, "503", 30)],
    pauses=[Pause(MAIL, NOW, None, "so")],
    endpoints=[Endpoint("webhook.acme", {}, NOW, "410", 0, 0, 0)],
)


def scrape(api: Api) -> dict[tuple[str, ...], float]:
    answer = api.call("GET", "/metrics")
    assert answer.status_code == 200
    return {
        (sample.name.removeprefix("invigilator_"), *_values(sample.labels)): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def _values(labels: dict[str, str]) -> list[str]:
    order = ("outcome", "kind", "code", "state", "result")
    known = [labels[name] for name in order if name in labels]
    return known + [value for name, value in labels.items() if name not in order]


def test_what_waits_and_who_works_on_it(api: Api) -> None:
    api.facts = FACTS
    found = scrape(api)
    assert (found["status",], found["broker_up",]) == (2, 1)
    assert (found["process_up", "commands"], found["process_up", "relay"]) == (1, 0)
    assert found["process_oldest_sign_seconds", "commands"] == 99
    assert (found["queue_length", "0"], found["shard_stalled_seconds", "0"]) == (7, 65)
    assert (found["effects", MAIL, "pending"], found["effects", MAIL, "failed"]) == (3, 2)
    assert (found["effects_oldest_seconds", MAIL], found["quarantined",]) == (30, 4)
    assert found["partitions_missing",] == 2
    assert (found["circuit_open", "webhook.acme"], found["webhook_off", "acme"]) == (1, 1)
    assert (found["paused", MAIL], found["paused", EffectKind.CASCADE_DECLINE]) == (1, 0)


def test_commands_and_tries_are_those_of_the_database(api: Api) -> None:
    record = api.sink.record
    record.handle(c.received(c.create("A")), c.received(c.update("A", "banana")))
    record.execute("INSERT INTO totals VALUES ('batches', ARRAY['0.01'], gen_random_uuid(), 2)")
    record.execute("INSERT INTO totals VALUES ('batches', ARRAY['+Inf'], gen_random_uuid(), 1)")
    found = scrape(api)
    assert found["commands_total", "rejected", "unknown_status"] == 1
    assert found["commands_total", "applied", ""] >= 1
    assert (found["batch_seconds_bucket", "0.005"], found["batch_seconds_bucket", "0.01"]) == (0, 2)
    assert (found["batch_seconds_bucket", "+Inf"], found["batch_seconds_count",]) == (3, 3)


@dataclass
class Asked:
    """Tells facts, or what keeps it from that, once it may."""

    result: Facts | Exception = FACTS
    may_answer: threading.Event = field(default_factory=threading.Event)
    times: int = 0

    def __call__(self) -> Facts:
        self.times += 1
        assert self.may_answer.wait(60)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    """Somebody who does not answer before the test ends, however slow the machine is."""
    monkeypatch.setattr(shared_facts, "BROKER_S", 60.0)
    monkeypatch.setattr(module, "ANSWER_S", 60.0)
    asked = Asked()
    yield asked
    asked.may_answer.set()


def never() -> Facts:
    raise AssertionError("only the broker's absence is a reason to ask")


def questions() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == QUESTION}


def text(metrics: Metrics) -> str:
    return asyncio.run(metrics.text()).decode()


def test_an_answer_is_given_again_for_a_moment(
    api: Api, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.may_answer.set()
    metrics = Metrics(api.engine, asked, never)
    monkeypatch.setattr(module, "KEPT_S", 3600.0)
    assert text(metrics) == text(metrics)
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    text(metrics)
    assert asked.times == 2


def test_an_error_is_given_again_too(api: Api, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    asked.may_answer.set()
    asked.result = OperationalError("SELECT 1", {}, Exception("away"))
    metrics = Metrics(api.engine, asked, never)
    monkeypatch.setattr(module, "KEPT_S", 3600.0)
    for _ in range(2):
        with pytest.raises(OperationalError):
            text(metrics)
    assert asked.times == 1


def test_those_who_ask_meanwhile_get_the_same_answer_and_hold_no_thread(api: Api, asked: Asked) -> None:
    metrics, before = Metrics(api.engine, SharedFacts(asked), never), questions()

    async def ask() -> set[bytes]:
        scrapes = [asyncio.create_task(metrics.text()) for _ in range(45)]
        await asyncio.to_thread(until, lambda: asked.times == 1)
        assert len(questions() - before) == 2  # one for all of them, and its question to the broker
        asked.may_answer.set()
        return set(await asyncio.gather(*scrapes))

    assert len(asyncio.run(ask())) == 1
    assert asked.times == 1


def test_while_the_broker_is_away_the_database_is_told_of(api: Api, asked: Asked) -> None:
    asked.may_answer.set()
    asked.result = BrokerAwayError("the broker is away")
    judge_without_broker(Metrics(api.engine, asked, lambda: replace(FACTS, shards=())))


def test_a_silent_broker_is_not_waited_for_and_asked_once(
    api: Api, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_facts, "BROKER_S", 0.0)
    monkeypatch.setattr(module, "KEPT_S", 0.0)
    metrics = Metrics(api.engine, SharedFacts(asked), lambda: replace(FACTS, shards=()))
    for _ in range(3):
        judge_without_broker(metrics)
    assert asked.times == 1


def judge_without_broker(metrics: Metrics) -> None:
    found = {
        (sample.name.removeprefix("invigilator_"), *_values(sample.labels)): sample.value
        for family in text_string_to_metric_families(text(metrics))
        for sample in family.samples
    }
    assert (found["status",], found["broker_up",]) == (2, 0)
    assert found["effects", MAIL, "pending"] == 3
    assert not [name for name, *_ in found if name in ("queue_length", "shard_stalled_seconds")]


def test_a_silent_database_is_said_and_not_waited_for(
    api: Api, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.0)
    with pytest.raises(ProblemError, match="the database does not answer"):
        text(Metrics(api.engine, asked, asked))


def test_a_token_closes_them(api: Api) -> None:
    api.metrics_token = "s3cret"
    refused = api.call("GET", "/metrics")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
    wrong = api.call("GET", "/metrics", headers={"Authorization": "Bearer s3cre7"})
    assert wrong.status_code == 401
    right = api.call("GET", "/metrics", headers={"Authorization": "Bearer s3cret"})
    assert right.status_code == 200


# --- what we ship for Prometheus and Grafana -----------------------------------------------------------------


@pytest.fixture(scope="module")
def promtool() -> str:
    return shutil.which("promtool") or unavailable("promtool is not installed (Debian: prometheus)")


def run(promtool: str, *arguments: str, **options: Any) -> None:
    ran = subprocess.run(
        [promtool, *arguments], capture_output=True, text=True, timeout=60, check=False, **options
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_likes_the_metrics(api: Api, promtool: str) -> None:
    api.facts = FACTS
    run(promtool, "check", "metrics", input=api.call("GET", "/metrics").text)


CASES: tuple[tuple[str, str, str, str, dict[str, str], str], ...] = (
    ("NotWorking", "invigilator_status", "2", "1", {}, "2m"),
    ("RoleMissing", "invigilator_process_up", "0", "1", {"role": "relay"}, "2m"),
    ("ShardStalled", "invigilator_shard_stalled_seconds", "61", "5", {"shard": "1"}, "2m"),
    ("QueueLong", "invigilator_queue_length", "10001", "10000", {"shard": "0"}, "6m"),
    (
        "EffectsFailed",
        "invigilator_effects",
        "1",
        "0",
        {"kind": "send_status_email", "state": "failed"},
        "6m",
    ),
    ("EffectsOld", "invigilator_effects_oldest_seconds", "901", "900", {"kind": "send_status_email"}, "6m"),
    ("CircuitOpen", "invigilator_circuit_open", "1", "0", {"service": "webhook.acme"}, "6m"),
    ("PausedForLong", "invigilator_paused", "1", "0", {"kind": "send_status_email"}, "241m"),
    ("Quarantine", "invigilator_quarantined", "1", "0", {}, "6m"),
    ("FeedBehind", "invigilator_feed_behind", "1001", "1000", {"feed": "feed.lms"}, "6m"),
    ("WebhookOff", "invigilator_webhook_off", "1", "0", {"endpoint": "acme"}, "2m"),
)
"""Of each alert: the metric, a value that raises it, one that does not, the labels, and when it is raised."""


def test_each_alert_is_raised_when_it_should_be_and_not_before(promtool: str, tmp_path: Path) -> None:
    rules = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}
    assert rules.keys() == {f"Invigilator{name}" for name, *_ in CASES}
    tests = [
        case(rules[f"Invigilator{name}"], metric, value, labels, at if is_bad else None, at)
        for name, metric, bad, good, labels, at in CASES
        for value, is_bad in ((bad, True), (good, False))
    ]
    file = tmp_path / "alerts.test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": tests}))
    run(promtool, "check", "rules", str(RULES))
    run(promtool, "test", "rules", str(file))


def case(
    rule: dict[str, Any], metric: str, value: str, labels: dict[str, str], raised_at: str | None, at: str
) -> dict[str, Any]:
    """A test of promtool: with this series, the alert is raised, or is not."""
    series = metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
    expected = []
    if raised_at is not None:
        known = {
            "exp_labels": {**labels, **rule["labels"]},
            "exp_annotations": annotations(rule, labels, value),
        }
        expected = [known]
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": f"{value}x300"}],
        "alert_rule_test": [{"eval_time": at, "alertname": rule["alert"], "exp_alerts": expected}],
    }


def annotations(rule: dict[str, Any], labels: dict[str, str], value: str) -> dict[str, str]:
    filled = {}
    for name, text in rule["annotations"].items():
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
        text = text.replace("{{ $value | humanizeDuration }}", "15m 1s").replace("{{ $value }}", value)
        filled[name] = text
    return filled


def test_a_paused_kind_is_not_late(promtool: str, tmp_path: Path) -> None:
    kind = '{kind="send_status_email"}'
    test = {
        "interval": "1m",
        "input_series": [
            {"series": f"invigilator_effects_oldest_seconds{kind}", "values": "901x10"},
            {"series": f"invigilator_paused{kind}", "values": "1x10"},
        ],
        "alert_rule_test": [{"eval_time": "6m", "alertname": "InvigilatorEffectsOld", "exp_alerts": []}],
    }
    file = tmp_path / "alerts.test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [test]}))
    run(promtool, "test", "rules", str(file))


def test_the_dashboard_asks_for_metrics_that_there_are(api: Api, promtool: str, tmp_path: Path) -> None:
    api.facts = FACTS
    names = {name for name, *_ in scrape(api)} | {"batch_seconds_bucket"}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for one in expressions for name in re.findall(r"invigilator_(\w+)", one)}
    exported = names | {"feed_behind", "tries_total", "webhook_off"}
    assert asked <= exported, "the dashboard asks for what there is not"
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    run(promtool, "check", "rules", str(file))
