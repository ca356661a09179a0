import pytest

from invigilator.demo.reference.store import DELETE, REMOVE, SET, Result, Store, is_well_formed

REQUIREMENT = {"user_id": "42", "course_id": "c", "req_namespace": "proctored_exam", "req_name": "b"}
TARGET = ("42", "c", "proctored_exam", "b")


def status(value: str) -> dict[str, str | None]:
    return {**REQUIREMENT, "status": value}


def test_the_newest_status_wins() -> None:
    store = Store()

    store.write(SET, status("submitted"), "effect-1", 1)
    store.write(SET, status("satisfied"), "effect-2", 2)

    assert store.credit == {TARGET: "satisfied"}
    assert store.counts == {Result.APPLIED: 2}


def test_a_repeated_key_changes_nothing() -> None:
    store = Store()
    store.write(SET, status("submitted"), "effect-1", 1)
    store.write(SET, status("failed"), "effect-2", 2)

    store.write(SET, status("submitted"), "effect-1", 3)

    assert store.credit == {TARGET: "failed"}
    assert store.counts[Result.DUPLICATE] == 1


def test_what_comes_late_is_dropped_even_after_a_removal() -> None:
    store = Store()
    store.write(REMOVE, REQUIREMENT, "effect-2", 2)

    store.write(SET, status("submitted"), "effect-1", 1)

    assert store.credit == {}
    assert store.counts[Result.LATE] == 1


@pytest.mark.parametrize("path", [DELETE, "/proctor/notify"])
def test_a_call_that_is_not_about_credit_is_kept_once_and_has_no_order(path: str) -> None:
    store = Store()
    body = {"username": "ada", "course_id": "c", "content_id": "b", "requested_by": None}

    store.write(path, body, "effect-2", 2)
    store.write(path, body, "effect-1", 1)
    store.write(path, body, "effect-1", 1)

    assert store.deletions == ([body, body] if path == DELETE else [])
    assert [call.result for call in store.calls] == [Result.APPLIED, Result.APPLIED, Result.DUPLICATE]


def test_a_call_that_failed_is_not_taken_for_seen() -> None:
    store = Store()

    with pytest.raises(KeyError):
        store.write(SET, {"status": "submitted"}, "effect-1", 1)
    store.write(SET, status("submitted"), "effect-1", 1)

    assert store.credit == {TARGET: "submitted"}
    assert store.counts == {Result.APPLIED: 1}


@pytest.mark.parametrize(
    "body", [None, [], {}, {**REQUIREMENT, "status": None}, {**REQUIREMENT, "more": "x"}]
)
def test_other_fields_than_the_contract_s_are_not_well_formed(body: object) -> None:
    assert not is_well_formed(SET, body)
    assert is_well_formed(REMOVE, REQUIREMENT)
