"""What each role may do."""

import pytest

from invigilator.acts.actor import ACTIONS, Action, Role, may

ADMINS_ONLY = {
    Action.ERASE,
    Action.WEBHOOK_ON,
    Action.WEBHOOK_OFF,
    Action.REPLAY_EVENTS,
    Action.SET_SHARDS,
    Action.BEGIN_PARTITIONS,
    Action.DROP_PARTITION,
}


def test_every_action_has_a_role() -> None:
    assert ACTIONS.keys() == set(Action)


@pytest.mark.parametrize("action", Action)
def test_who_may(action: Action) -> None:
    allowed = {role for role in Role if may(role, action)}
    assert allowed == ({Role.ADMIN} if action in ADMINS_ONLY else {Role.OPERATOR, Role.ADMIN})
