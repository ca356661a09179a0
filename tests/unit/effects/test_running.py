"""Which tries run."""

from uuid import UUID

import pytest

from worker.effects.running import RunningTries

FIRST, SECOND = UUID(int=1), UUID(int=2)


def test_tries_are_there_while_they_run() -> None:
    tries = RunningTries()
    with tries.noted(FIRST, "cascade_decline"), tries.noted(SECOND, "deliver_event"), tries.noted(FIRST, "x"):
        found = tries.oldest_first()
        assert [(one.effect_id, one.kind) for one in found] == [
            (FIRST, "cascade_decline"),
            (SECOND, "deliver_event"),
            (FIRST, "x"),
        ]
        assert found[0].for_s >= found[1].for_s >= found[2].for_s >= 0
    assert tries.oldest_first() == []


def test_one_that_fails_has_ended() -> None:
    tries = RunningTries()
    with pytest.raises(ValueError, match="no"), tries.noted(FIRST, "x"):
        raise ValueError("no")
    assert tries.oldest_first() == []
