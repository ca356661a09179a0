"""The action of a kind is there, or the worker does not start."""

import pytest

from worker.effects.action_table import ACTIONS, find_action
from worker.kinds import EffectKind


def test_each_kind_has_its_action() -> None:
    assert list(ACTIONS) == list(EffectKind)
    assert all(callable(make()) for make in ACTIONS.values())


@pytest.mark.parametrize(
    ("place", "error", "problem"),
    [
        ("worker.effects.nowhere:Notify", ImportError, "there is no action worker.effects.nowhere:Notify"),
        ("worker.effects.credit:Notify", ImportError, "there is no action worker.effects.credit:Notify"),
        ("worker.effects.mail:LMS", TypeError, "is no class whose instances can be called"),
        ("worker.effects.action:TryFailedError", TypeError, "is no class whose instances can be called"),
    ],
)
def test_a_kind_without_an_action_is_refused(place: str, error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem) as caught:
        find_action("notify_proctor", place)
    assert str(caught.value).startswith("kind of effect 'notify_proctor': ")
    assert "\n" not in str(caught.value)
