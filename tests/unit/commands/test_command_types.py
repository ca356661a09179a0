"""A command type is handled, or the worker does not start."""

import inspect
from dataclasses import fields
from typing import Any, ClassVar

import pytest

import events.commands
from events.commands import (
    COMMAND_TYPES,
    AttemptCreate,
    CommandData,
    CourseUpsert,
    ExamUpsert,
    LearnerUpsert,
    types_of,
)
from events.methods import CommandMethods, NewCommand
from tests import sample_commands as c
from worker.commands.command_types import CommandType, needs_of, table
from worker.commands.fold import Fold
from worker.rules.moments import Clock

COURSE = CommandType(
    model=CourseUpsert,
    apply=Fold.upsert_course,
    add_needs=lambda data, needs: None,
    moment=Clock.of_description,
)
LEARNER = CommandType(
    model=LearnerUpsert,
    apply=Fold.upsert_learner,
    add_needs=lambda data, needs: None,
    moment=Clock.of_description,
)


def test_a_type_without_an_entry_is_refused() -> None:
    problem = "exam.upsert.v1: needs one entry in worker/commands/command_types.py"
    with pytest.raises(TypeError, match=problem):
        table([COURSE], [CourseUpsert, ExamUpsert])


def test_a_type_with_two_entries_is_refused() -> None:
    with pytest.raises(TypeError, match=r"course.upsert.v1: needs one entry"):
        table([COURSE, COURSE], [CourseUpsert])


def test_an_entry_for_what_is_no_command_is_refused() -> None:
    with pytest.raises(TypeError, match=r"LearnerUpsert: add it to COMMAND_TYPES in events/commands.py"):
        table([COURSE, LEARNER], [CourseUpsert])


@pytest.mark.parametrize("missing", ["model", "apply", "add_needs", "moment"])
def test_an_entry_without_a_field_is_refused(missing: str) -> None:
    whole = {field.name: getattr(COURSE, field.name) for field in fields(COURSE)}
    with pytest.raises(TypeError, match=f"missing 1 required keyword-only argument: '{missing}'"):
        CommandType(**{name: value for name, value in whole.items() if name != missing})


def test_a_batch_needs_what_its_commands_need() -> None:
    batch = [
        c.course(),
        c.exam("A", course_id="c2"),
        c.learner(),
        c.create("A", attempt_code="code"),
        c.update("B", "started", "43"),
    ]
    needs = needs_of(c.command(one) for one in batch)
    assert needs.user_ids == {c.create("A").learner_id, "43"}
    assert needs.exam_ids == {"A", "B"}
    assert needs.course_ids == {"c2"}
    assert needs.attempt_codes == {"code"}
    assert (needs.courses, needs.exams, needs.learners) == ({c.COURSE}, {"A"}, {"42"})


@pytest.mark.parametrize("model", COMMAND_TYPES.values())
def test_only_learners_that_are_locked_are_looked_at(model: type[CommandData]) -> None:
    # Given a command of this type
    values: dict[str, Any] = {"user_id": "42", "exam_id": "A", "course_id": "c", "to_status": "started"}
    data = model.model_construct(**{name: values[name] for name in model.model_fields if name in values})
    # Then the learner whose attempts it looks at is the one whose lock the handler takes
    assert needs_of([c.command(data)]).user_ids <= {data.learner_id}


ABOUT_AN_ATTEMPT = [
    model for model in COMMAND_TYPES.values() if {"exam_id", "user_id"} <= model.model_fields.keys()
]


@pytest.mark.parametrize("model", ABOUT_AN_ATTEMPT)
def test_what_is_about_an_attempt_looks_at_its_learner_and_its_exam(model: type[CommandData]) -> None:
    values: dict[str, Any] = {"user_id": "42", "exam_id": "A"}
    needs = needs_of([c.command(model.model_construct(**values))])
    assert (needs.user_ids, needs.exam_ids) == ({"42"}, {"A"})


class Unpublished(CommandMethods[NewCommand]):
    """Its methods return what a publisher would send."""

    def _publish_new(self, new: NewCommand) -> NewCommand:
        return new


def test_a_publisher_has_one_method_for_each_type() -> None:
    made = []
    for name, method in inspect.getmembers(CommandMethods, inspect.isfunction):
        if not name.startswith("_"):
            parameters = inspect.signature(method).parameters.values()
            needed = {
                one.name: "x"
                for one in parameters
                if one.kind is one.KEYWORD_ONLY and one.default is one.empty
            }
            made.append(getattr(Unpublished(), name)(**needed).model)
    assert sorted(model.type for model in made) == sorted(COMMAND_TYPES)


class TestModels:
    """What `COMMAND_TYPES` has, and what it refuses."""

    def test_every_model_with_a_type(self) -> None:
        assert {
            model
            for model in vars(events.commands).values()
            if isinstance(model, type) and issubclass(model, CommandData) and "type" in vars(model)
        } == set(COMMAND_TYPES.values())

    def test_two_models_with_the_same_type(self) -> None:
        class Second(CourseUpsert):
            """It has its parent's type."""

        with pytest.raises(TypeError, match="Second: needs a `type` of its own"):
            types_of(CourseUpsert, Second)

    def test_a_model_without_a_type(self) -> None:
        class Untyped(CommandData):
            """It has no `type`."""

        with pytest.raises(TypeError, match="Untyped: needs a `type` of its own"):
            types_of(Untyped)

    def test_a_learners_model_that_does_not_say_whose_it_is(self) -> None:
        class Adrift(CommandData):
            """It would be locked and sharded with nobody's commands."""

            type: ClassVar[str] = "exam.attempt.adrift.v1"
            user_id: str

        with pytest.raises(TypeError, match="Adrift: has a user_id, so it must inherit LearnerData"):
            types_of(AttemptCreate, Adrift)
