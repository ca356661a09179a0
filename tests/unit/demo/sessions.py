"""Small sessions, written by hand."""

from datetime import UTC, datetime

from events.commands import Command, CommandData, CourseUpsert, ExamUpsert, LearnerUpsert
from invigilator.demo.session import Message, Session, source_of
from invigilator.demo.stories import Actor, ExamRole, exam_id

RUN = "r1"
COURSE = f"demo-{RUN}"
WHO = Actor("ada", COURSE)
START = datetime(2026, 3, 1, 9, tzinfo=UTC)

MIDTERM = exam_id(COURSE, ExamRole.MIDTERM)
FINAL = exam_id(COURSE, ExamRole.FINAL)
TIMED = exam_id(COURSE, ExamRole.TIMED)


def session(*asked: CommandData | Message) -> Session:
    """Build a session: a course with its exams, one learner, and then the given commands with ids from c1."""
    announced = [
        CourseUpsert(course_id=COURSE),
        *(_exam(role) for role in ExamRole if role is not ExamRole.UNKNOWN),
        LearnerUpsert(user_id="ada", username="ada", email=f"ada@{RUN}.example.org", full_name="Ada"),
    ]
    before = [command(f"a{number}", data) for number, data in enumerate(announced, start=1)]
    after = [
        command(f"c{number}", item) if isinstance(item, CommandData) else item
        for number, item in enumerate(asked, start=1)
    ]
    return Session(RUN, (*before, *after))


def command(command_id: str, data: CommandData) -> Command:
    return Command(source_of(RUN), command_id, data)


def _exam(role: ExamRole) -> ExamUpsert:
    return ExamUpsert(
        exam_id=exam_id(COURSE, role),
        course_id=COURSE,
        content_id=role,
        exam_name=role.capitalize(),
        is_proctored=role is not ExamRole.TIMED,
        is_practice_exam=role is ExamRole.PRACTICE,
    )
