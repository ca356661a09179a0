"""Webhooks with the real processes: receivers that refuse, redirect, are slow or gone, and kills under load."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from invigilator.demo.reference.http_server import HttpResponse
from tests.acceptance.harness import Stack
from tests.acceptance.load import feeding, load
from tests.chaos.points import Crash
from tests.fakes.receiver import SECRET, TAKEN, Receiver, always

COMMANDS = 200
KILLS = 3


class Receivers:
    """Endpoints, each on a port of its own."""

    def __init__(self, stack: Stack, *names: str, order: str = "none") -> None:
        self.stack = stack
        self._all = {name: Receiver() for name in names}
        self._order = order
        self._resources = ExitStack()

    def __getitem__(self, name: str) -> Receiver:
        return self._all[name]

    def __enter__(self) -> "Receivers":
        for receiver in self._all.values():
            self._resources.enter_context(receiver)
        file = self.stack.folder / "subscriptions.toml"
        tables = ["[api]\n"] + [
            f"[webhook.{name}]\nurl = '{receiver.url}/s3cret?token=s3cret'\nsecrets = ['{SECRET}']\n"
            f"order = '{self._order}'\n"
            for name, receiver in self._all.items()
        ]
        file.write_text("\n".join(tables))
        self.stack.settings["SUBSCRIPTIONS_FILE"] = str(file)
        for name in ("commands", "relay", "webhooks"):
            self.stack.start(name)
        self.stack.wait_until(
            lambda: self.stack.number("SELECT count(*) FROM subscribers") > len(self._all),
            "the relay to store who subscribes",
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()


def log(stack: Stack) -> list[str]:
    """The ids of the events, in order."""
    return [str(row.id) for row in stack.rows("SELECT id FROM events ORDER BY position")]


def has(receiver: Receiver, number: int) -> bool:
    return len(receiver.copies()) > number


def has_all(stack: Stack, receiver: Receiver) -> bool:
    return receiver.copies().keys() == set(log(stack))


def pending(stack: Stack, name: str) -> int:
    return stack.number(
        "SELECT count(*) FROM effects WHERE subscriber = :name AND state IN ('pending', 'running')",
        name=f"webhook.{name}",
    )


@pytest.fixture
def receivers(stack: Stack) -> Iterator[Receivers]:
    with Receivers(stack, "right", "refusing", "redirecting", "slow", "gone") as receivers:
        yield receivers


def test_receivers_that_do_not_take_an_event_hold_up_no_other(stack: Stack, receivers: Receivers) -> None:
    # Given receivers that misbehave, each in its way
    def slowly(_: dict[str, Any]) -> HttpResponse:
        receivers["slow"].pause(3600)
        return TAKEN

    receivers["refusing"].answers = always(500, {"code": "no_room"})
    receivers["redirecting"].answers = always(302, Location="http://169.254.169.254/latest/meta-data/")
    receivers["slow"].answers = slowly
    receivers["gone"].answers = always(410)
    # When something happens
    bodies = load(40)
    with feeding(stack.client, bodies):
        stack.settle_commands()
    # Then the one that is right gets all of it, verified by the public package, whatever the others do
    stack.wait_until(partial(has_all, stack, receivers["right"]), "the right one to have all")
    # and the one that is gone is off, with what it is owed
    stack.wait_until(lambda: _off(stack, "gone"), "the one that is gone to be off")
    assert pending(stack, "gone") > 0
    # When all of them have come to their senses
    for name in ("refusing", "redirecting", "slow", "gone"):
        receivers[name].answers = lambda _: TAKEN
    receivers["slow"].stop()
    receivers["slow"].start()
    stack.cli("webhooks", "on", "gone")
    # Then they get what they have missed
    for name in ("refusing", "redirecting", "slow", "gone"):
        stack.wait_until(partial(has_all, stack, receivers[name]), f"{name} to have all")
    # and no secret of a URL is in any log
    for process in stack.processes:
        assert "s3cret" not in process.output()
        assert SECRET not in process.output()


def _off(stack: Stack, name: str) -> bool:
    return bool(
        stack.number(
            "SELECT count(*) FROM subscribers WHERE name = :name AND off_since IS NOT NULL",
            name=f"webhook.{name}",
        )
    )


def test_kills_under_load_lose_nothing_and_repeat_with_the_same_id(stack: Stack) -> None:
    with Receivers(stack, "acme", order="learner") as receivers:
        receiver = receivers["acme"]
        bodies = load(COMMANDS)
        with feeding(stack.client, bodies):
            for kill in range(1, KILLS + 1):
                stack.wait_until(
                    partial(has, receiver, COMMANDS // 4 * kill // KILLS), "some events to arrive"
                )
                for name in ("webhooks", "relay"):
                    [process] = stack.running(name)
                    process.kill()
                    stack.start(name)
        stack.settle_commands()
        stack.wait_until(partial(has_all, stack, receiver), "all events to arrive")
        # Then every event has come, each learner's in order, and copies have the same id
        first = {one["id"]: one for one in reversed(receiver.events)}
        by_learner: dict[str, list[str]] = {}
        for one in dict.fromkeys(event["id"] for event in receiver.events):
            if learner := first[one].get("partitionkey"):
                by_learner.setdefault(learner, []).append(first[one]["sequence"])
        assert by_learner
        assert all(sequences == sorted(sequences) for sequences in by_learner.values())
        assert all(event == first[event["id"]] for event in receiver.events)
        # and each event is owed once
        owed = "FROM effects WHERE kind = 'deliver_event'"
        assert stack.number(f"SELECT count(*) {owed}") == len(log(stack))
        assert stack.number(f"SELECT count(DISTINCT event_id) {owed}") == len(log(stack))


def test_a_relay_that_dies_in_the_fan_out_owes_each_event_once(stack: Stack) -> None:
    with Receivers(stack, "acme") as receivers:
        [relay] = stack.running("relay")
        relay.kill()
        with feeding(stack.client, load(10, learners=6)):
            stack.settle_commands()
        # When it dies, then the next one goes on from where the cursor stands
        stack.wait_until_struck(stack.start("relay", crash=Crash("before_fan_out_commit", "kill")))
        assert stack.number("SELECT count(*) FROM effects WHERE kind = 'deliver_event'") == 0
        stack.start("relay")
        stack.wait_until(partial(has_all, stack, receivers["acme"]), "all events to arrive")
        assert set(receivers["acme"].copies().values()) == {1}
