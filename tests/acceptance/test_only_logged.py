"""Neither LMS nor mail server: everything is done, and nobody is left to believe that anybody has heard of it."""

import json
from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Stack


@pytest.fixture
def stack(database_url: str, valkey_url: str) -> Iterator[Stack]:
    with Stack(database_url, valkey_url, LMS_URL="log:", SMTP_URL="log:") as stack:
        yield stack


def test_it_is_warned_of_at_the_start_and_shown_with_each_try(stack: Stack) -> None:
    # Given engines of one's own, and services that were forgotten
    stack.start_all()
    stack.client.course("course")
    stack.client.exam("exam", "course")
    stack.client.learner("u")
    stack.client.create("exam", "u", taking_as_proctored=True)
    # When something is owed to them
    stack.client.update("exam", "u", "verified")
    stack.settle()
    # Then it is done, as the settings say
    listed = [json.loads(line) for line in stack.cli("effects", "list", "--json").stdout.splitlines()]
    assert {(one["kind"], one["state"]) for one in listed} == {
        ("set_credit_status", "done"),
        ("send_status_email", "done"),
    }
    # and each try says that it was only logged
    for one in listed:
        shown = json.loads(stack.cli("effects", "show", one["id"], "--json").stdout)
        assert [tried["result"] for tried in shown["tries"]] == ["logged"]
    # and each worker has said at its start what to set
    for name in ("effects", "mail"):
        [process] = stack.running(name)
        warnings = [line for line in process.logged() if line["event"] == "a service is only logged"]
        assert [(line["setting"], line["level"]) for line in warnings] == [
            ("INVIGILATOR_LMS_URL", "warning"),
            ("INVIGILATOR_SMTP_URL", "warning"),
        ]
