"""The Django of docs/client.md, as it stands there."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import RequestFactory
from standardwebhooks import Webhook

import events
import events.django
from tests.integration.django.conftest import Broker

PAGE = Path(__file__).parents[3] / "docs" / "client.md"
BLOCK = re.compile(r"^```python django\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
EVENT = '{"id": "5f0c", "type": "exam.attempt.created.v1"}'


class ExamAttempt:
    """A stand-in for a model of the LMS."""

    saved = False

    def save(self) -> None:
        self.saved = True


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch, invigilator: dict[str, Any]) -> list[str]:
    """The settings, a publish and a view. Here the client is called `events`."""
    monkeypatch.setitem(sys.modules, "invigilator_client", events)
    monkeypatch.setitem(sys.modules, "invigilator_client.django", events.django)
    return [block["code"] for block in BLOCK.finditer(PAGE.read_text())]


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(code, names)
    return names


def test_the_outbox(
    blocks: list[str], invigilator: dict[str, Any], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from events.django.courier import Courier

    monkeypatch.setattr(Courier, "wake", lambda self: None)
    # Given the settings of the page, on a broker of ours
    set_there = run(blocks[0])
    assert set_there["INSTALLED_APPS"][-1] == "invigilator_client.django"
    invigilator.update({**set_there["INVIGILATOR"], "BROKER_URL": broker.url})
    # When a status is saved as it says, and commands are published as it says
    attempt = ExamAttempt()
    run(blocks[1], exam_attempt=attempt)
    call_command("publish_commands", once=True)
    # Then that command has come
    assert attempt.saved
    [command] = broker.taken()
    assert (command.source, command.type) == ("/lms/acme", "exam.attempt.update-status.v1")


def test_the_webhook(blocks: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    view = run(blocks[2])
    now = datetime.now(UTC)
    headers = {
        "webhook-id": "5f0c",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(view["SECRETS"][0]).sign("5f0c", now, EVENT),
    }

    def post(body: str) -> int:
        request = RequestFactory().post(
            "/", body, content_type="application/cloudevents+json", headers=headers
        )
        return int(view["hear"](request).status_code)

    assert [post(EVENT), post(EVENT + " ")] == [204, 400]
    assert capsys.readouterr().out == "exam.attempt.created.v1 5f0c\n"
    assert view["hear"].csrf_exempt
