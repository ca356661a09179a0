"""The pages of the console on a database with something in it."""

import re

import pytest
from starlette.testclient import TestClient

from invigilator.acts.actor import Role
from invigilator.web.console.pages import DOORS
from tests import sample_commands as c
from tests.integration.cli.conftest import Record
from tests.unit.web.console.visiting import behind_proxy
from worker.kinds import EffectKind

LINK = re.compile(r'href="(/console/[^"]*)"')


@pytest.fixture
def busy(record: Record) -> Record:
    """Learner 42 has submitted exam A; one of the effects has failed, and a message is in quarantine."""
    record.handle(
        c.received(c.create("A"), "create"),
        c.received(c.update("A", "submitted"), "submit"),
        c.received(c.update("A", "created"), "back"),
    )
    record.set_state(record.effect_ids(EffectKind.SET_CREDIT_STATUS)[0], "failed")
    record.quarantine(b'{"email": "<script>alert(1)</script>"}', source="/lms", command_id="bad")
    return record


@pytest.fixture
def viewer(record: Record) -> TestClient:
    return behind_proxy(record.engine, Role.VIEWER)


def test_every_link_leads_somewhere(busy: Record) -> None:
    client = behind_proxy(busy.engine, Role.ADMIN)
    seen: set[str] = set()
    waiting = ["/console/"]
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        answer = client.get(place)
        assert answer.status_code == 200, (place, answer.text)
        if "text/html" in answer.headers["content-type"]:
            waiting += [link.replace("&amp;", "&") for link in LINK.findall(answer.text)]
    pages = {place.split("?")[0] for place in seen}
    looked_at = {f"/console{door.path}" for door in DOORS if door.method == "GET"}
    assert looked_at - pages <= {"/console/search", "/console/webhook"}
