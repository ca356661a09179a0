"""The words of the mails: one subject, text and HTML template for each status that is mailed."""

import unicodedata
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from events.vocabulary import Status

MAILED_STATUSES = frozenset({Status.SUBMITTED, Status.VERIFIED, Status.REJECTED})
DEFAULT_COURSE_NAME = "your course"


@dataclass(frozen=True, slots=True)
class MailText:
    """What a mail says. The subject is one line."""

    subject: str
    text: str
    html: str


def render(status: Status, *, learner_name: str, exam_name: str, course_name: str | None) -> MailText:
    """Write the mail to a learner whose attempt has reached `status`.

    Parameters:
        status: one of `MAILED_STATUSES`.
        learner_name: the full name, or the username when there is none.
        exam_name: as the LMS calls it.
        course_name: None when nobody has told it; the mail then says `your course`.

    Raises:
        ValueError: there is no mail for this status.
    """
    if status not in MAILED_STATUSES:
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
        auto_reload=False,  # or each mail would look at its templates' files
    )


def _one_line(name: str) -> str:
    """Without control characters, which end headers, and half surrogate pairs, which no mail can carry."""
    clean = (" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in name)
    return " ".join("".join(clean).split())
