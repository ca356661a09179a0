"""Renders the mails to learners from templates: subject, text and HTML for each status that is mailed."""

import unicodedata
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from events.vocabulary import Status
from worker.rules.policy import MAIL_STATUSES

DEFAULT_COURSE_NAME = "your course"


@dataclass(frozen=True, slots=True)
class MailText:
    """The rendered parts of a mail. The subject is a single line."""

    subject: str
    text: str
    html: str


def render(status: Status, *, learner_name: str, exam_name: str, course_name: str | None) -> MailText:
    """Render the mail to a learner whose attempt has reached `status`.

    Parameters:
        status: one of `worker.rules.policy.MAIL_STATUSES`.
        learner_name: the full name, or the username when no full name is known.
        exam_name: the name of the exam in the LMS.
        course_name: the name of the course, or None when it is unknown. The mail then says `your course`.

    Raises:
        ValueError: there is no mail for this status.
    """
    if status not in MAIL_STATUSES:
        raise ValueError(f"no mail is written for {status}")
    names = {
        "learner_name": _one_line(learner_name),
        "exam_name": _one_line(exam_name),
        "course_name": _one_line(course_name or "") or DEFAULT_COURSE_NAME,
    }
    return MailText(
        subject=_one_line(_fill(f"{status}.subject.txt", names)),
        text=_fill(f"{status}.txt", names),
        html=_fill(f"{status}.html", names),
    )


def _fill(template: str, names: dict[str, str]) -> str:
    return _environment().get_template(template).render(names)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("worker.lms"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,  # otherwise Jinja checks the template files for every mail
    )


def _one_line(name: str) -> str:
    """Return a name on one line, without control characters and lone surrogates.

    A line break would end a mail header. A lone surrogate cannot be encoded.
    """
    clean = (" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in name)
    return " ".join("".join(clean).split())
