"""A trace comes with a command or is left out, and never costs a command."""

from dataclasses import replace
from typing import Any

import pytest

from events.envelope import parse, render, to_event
from tests.unit.events.messages import TRACE, encode, event


def test_a_trace_comes_with_its_command() -> None:
    command = parse(encode(event(traceparent=TRACE)))
    assert command.traceparent == TRACE
    assert to_event(command)["traceparent"] == TRACE


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        7,
        [TRACE],
        "",
        TRACE[:-1],
        TRACE + "0",
        TRACE + "\n",
        TRACE.upper(),
        TRACE.replace("00-", "01-", 1),
        TRACE.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        TRACE.replace("b7ad6b7169203331", "0" * 16),
        TRACE.replace("-01", "-zz"),
        "\ud800" * 55,
    ],
)
def test_a_malformed_trace_is_left_out(malformed: Any) -> None:
    # When it comes with a message, the command counts without it
    command = parse(encode(event(traceparent=malformed)))
    assert command == parse(encode(event()))
    # When a publisher is given it, it is not sent
    assert render(replace(command, traceparent=malformed)) == render(command)


def test_another_trace_makes_no_other_command() -> None:
    with_trace, without = (parse(encode(event(**one))) for one in ({"traceparent": TRACE}, {}))
    assert with_trace.fingerprint() == without.fingerprint()
