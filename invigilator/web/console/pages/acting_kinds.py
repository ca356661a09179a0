"""Pausing a kind of effect, and resuming it."""

from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from invigilator.acts import pauses
from invigilator.acts.moments import moment_or_utc
from invigilator.acts.transactions import acting
from invigilator.web.console.pages.acting import ask, reason_of
from invigilator.web.console.rendering import address
from invigilator.web.console.site import Site, Visit
from worker.durations import parse_duration
from worker.kinds import EffectKind


def ask_to_pause(site: Site, visit: Visit) -> Response:
    """Ask for how long a kind is to be paused, and why."""
    kind = _kind(visit.asked("kind"))
    return ask(
        site,
        visit,
        title=f"Pause {kind}",
        question=f"Pause {kind}? Its effects wait, and nothing of them is lost. Those that run now end as they do.",
        hidden=[("kind", kind.value)],
        button=f"Pause {kind}",
        back=address(""),
        fields=[
            {
                "name": "until",
                "label": "For how long, such as 2h, or until when, such as 2027-01-31T06:00 (UTC). "
                "Empty: until somebody resumes it",
            }
        ],
    )


def pause(site: Site, visit: Visit) -> Response:
    """Pause a kind."""
    kind, reason, until = _kind(visit.sent("kind")), reason_of(visit), _until(visit.sent("until"))
    with acting(site.engine) as connection:
        pauses.pause(connection, visit.person.actor(), kind, until, reason)
    return RedirectResponse(address(""), HTTPStatus.SEE_OTHER)


def ask_to_resume(site: Site, visit: Visit) -> Response:
    """Ask why a kind is to be resumed."""
    kind = _kind(visit.asked("kind"))
    return ask(
        site,
        visit,
        title=f"Resume {kind}",
        question=f"Resume {kind}? What waits is tried at once.",
        hidden=[("kind", kind.value)],
        button=f"Resume {kind}",
        back=address(""),
    )


def resume(site: Site, visit: Visit) -> Response:
    """Resume a kind."""
    kind, reason = _kind(visit.sent("kind")), reason_of(visit)
    with acting(site.engine) as connection:
        pauses.resume(connection, visit.person.actor(), kind, reason)
    return RedirectResponse(address(""), HTTPStatus.SEE_OTHER)


def _kind(text: str | None) -> EffectKind:
    if text not in list(EffectKind):
        raise HTTPException(HTTPStatus.BAD_REQUEST, f"kind: must be one of {', '.join(EffectKind)}.")
    return EffectKind(text)


def _until(text: str) -> datetime | None:
    if not text:
        return None
    with suppress(ValueError, OverflowError):
        return datetime.now(UTC) + parse_duration(text)
    try:
        return moment_or_utc(text)
    except ValueError:
        raise HTTPException(
            HTTPStatus.BAD_REQUEST,
            "until: must be a duration such as 2h, or a time such as 2027-01-31T06:00.",
        ) from None
