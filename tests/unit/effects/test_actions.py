"""The action of a kind is there, or the worker does not start."""

from typing import Any, get_args, get_origin, get_type_hints

import pytest

from worker.effects.action import Recorded, Run
from worker.effects.action_table import ACTIONS, find_action
from worker.effects.coalescer import Coalescer
from worker.kinds import EffectKind


def signature(action: Any) -> tuple[Any, ...]:
    """What an action takes and returns."""
    for base in getattr(action, "__orig_bases__", ()):
        if get_origin(base) is Coalescer:
            return get_args(base)
    hints = get_type_hints(action.__call__)
    return hints["run"], hints["return"]


@pytest.mark.parametrize("kind", EffectKind)
def test_the_action_of_a_kind_takes_its_payload_and_says_who_records(kind: EffectKind) -> None:
    takes, says = signature(ACTIONS[kind])
    assert (get_origin(takes), get_args(takes)) == (Run, (kind.entry.payload,))
    assert says is Recorded


@pytest.mark.parametrize(
    ("place", "error", "problem"),
    [
        ("worker.effects.nowhere:Notify", ImportError, "there is no action worker.effects.nowhere:Notify"),
        ("worker.effects.credit:Notify", ImportError, "there is no action worker.effects.credit:Notify"),
        ("worker.effects.mail:LMS", TypeError, "is no class whose instances can be called"),
        ("worker.effects.runner:TryFailedError", TypeError, "is no class whose instances can be called"),
    ],
)
def test_a_kind_without_an_action_is_refused(place: str, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem) as caught:
        find_action("notify_proctor", place)
    assert str(caught.value).startswith("kind of effect 'notify_proctor': ")
    assert "\n" not in str(caught.value)
