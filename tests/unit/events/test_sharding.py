"""Sharding: the queue of each command."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.commands import Command
from events.sharding import queue_name, shard_of, shards_of
from tests.unit.events import messages


def test_a_queue_is_named_after_its_shard() -> None:
    assert queue_name(3) == "invigilator.commands.3"


@pytest.mark.parametrize(("user_id", "crc"), [("42", 0x3224B088), ("é", 0x0E048D3E)])
def test_the_shard_is_the_crc_32_of_the_user_id_as_utf_8(user_id: str, crc: int) -> None:
    assert zlib.crc32(user_id.encode()) == crc
    assert shard_of(user_id, 1024) == crc % 1024


@given(messages.commands, st.integers(1, 1024))
def test_a_learners_commands_go_to_one_shard_and_others_to_all(command: Command, shards: int) -> None:
    chosen = list(shards_of(command.data, shards))

    if command.data.learner_id is None:
        assert chosen == list(range(shards))
    else:
        assert chosen == [shard_of(command.data.learner_id, shards)]
        assert 0 <= chosen[0] < shards
