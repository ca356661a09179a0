"""Targets: readable, and never the same for two different credits."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.effects.answers import ids as shown_ids
from worker.kinds import MAX_TARGET_CHARS, EffectKind, Payload, credit_target, label

ids = st.text(min_size=1, max_size=255)


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
def test_targets_differ_when_credits_do(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (credit_target(*one) == credit_target(*other)) == (one == other)


@given(ids, ids, ids)
def test_a_target_fits_its_index(user_id: str, course_id: str, content_id: str) -> None:
    assert len(credit_target(user_id, course_id, content_id).encode()) <= MAX_TARGET_CHARS


def test_a_target_can_be_read() -> None:
    assert credit_target("42", "course-v1:X+Y", "a/b") == "credit:42/course-v1:X+Y/a%2Fb"
    assert credit_target("a/b", "c", "d") != credit_target("a", "b/c", "d")


def test_what_a_sender_chose_is_shown_as_it_is() -> None:
    payload = Payload("course-v1:X+Y", "Ü-42", "c", "x")
    shown = label(EffectKind.CASCADE_DECLINE, payload, 3)
    assert shown == "cascade decline · exam course-v1:X+Y · learner Ü-42 · try 3"
    assert shown_ids(UUID(int=7), "/lms/acme", "5f0c") == f"effect {UUID(int=7)} · command /lms/acme 5f0c"


@pytest.mark.parametrize(
    "forged", ["7 · learner 8", "7\nTask effects.x succeeded", "7\u202e", "'", "7·8", "\x1b[2J"]
)
def test_no_id_forges_a_label_or_a_line(forged: str) -> None:
    shown = label(EffectKind.CASCADE_DECLINE, Payload(forged, "u", "c", "x"), 1)
    assert shown == f"cascade decline · exam {forged!r} · learner u · try 1"
    assert shown_ids(UUID(int=7), forged, forged).endswith(f" · command {forged!r} {forged!r}")
    assert shown.isprintable()


def test_a_long_target_is_a_digest() -> None:
    long = credit_target("u" * 255, "c" * 255, "x" * 255)
    assert len(long) == len("credit:") + 64
    assert long != credit_target("u" * 255, "c" * 255, "y" * 255)
