"""`invigilator lms`: looks at the LMS from the worker's side."""

from collections.abc import Iterator
from dataclasses import asdict

import click

from invigilator.cli.options import JSON_LINES
from invigilator.cli.output import Row, print_rows
from worker.findings import Finding, Verdict

app = click.Group("lms", help="Look at the LMS.", no_args_is_help=False)


@app.command("check")
@click.option("--user", metavar="U", help="The user_id of a test learner whom the LMS knows.")
@click.option("--username", metavar="N", help="The username of that learner.")
@click.option("--course", metavar="C", help="The course_id of a test course.")
@click.option("--content", metavar="B", help="The content_id of a test exam.")
@JSON_LINES
def check(
    user: str | None, username: str | None, course: str | None, content: str | None, as_json: bool
) -> None:
    """Make each call once, and say what does not fit.

    The calls are real: they set and remove the credit of a test learner, and reset the learner's work. Without the
    options that learner, the course and the exam are called invigilator-check. The exit status is 1 if there is a
    problem.
    """
    from worker.lms import check as lms_check
    from worker.settings import load

    named = {"user_id": user, "username": username, "course_id": course, "content_id": content}
    subject = lms_check.Subject(**{name: value for name, value in named.items() if value is not None})
    found: list[Finding] = []

    def rows() -> Iterator[Row]:
        for finding in lms_check.check(load(), subject):
            found.append(finding)
            yield asdict(finding)

    print_rows(rows(), ("check", "verdict", "detail"), as_json, "checks")
    if any(finding.verdict is Verdict.PROBLEM for finding in found):
        raise click.exceptions.Exit(1)
