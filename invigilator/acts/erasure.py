"""The erasure of a learner: names and addresses go, the record stays under the id."""

from typing import Any

from sqlalchemy import Connection

from db import erasure
from db.acts import Target
from db.erasure import Erased, NamesLearnerError
from db.states import EffectState
from events.errors import InvigilatorError
from invigilator.acts.actor import Action, Actor
from invigilator.acts.transactions import new_act, record
from worker.kinds import EffectKind


class UnknownLearnerError(InvigilatorError):
    """Nobody of this id is known."""

    code = "not_found"


class ReasonNamesLearnerError(InvigilatorError):
    """The reason names the learner who is to be erased. It would stay in the audit."""

    code = "reason_names_learner"


def erase(connection: Connection, user_id: str, actor: Actor, reason: str) -> Erased:
    """Erase a learner in the caller's transaction, and write the act into the audit.

    A second erasure finds nothing to erase, and is an act, too.

    Parameters:
        actor: who does it. The caller has checked that they may.
        reason: why. It stays in the audit, so it may not name the learner.

    Raises:
        UnknownLearnerError: nobody of this id is known.
        ReasonNamesLearnerError: the reason holds a name or the address of the learner. Nothing was changed.
    """
    try:
        erased = erasure.erase(connection, user_id, mail_kind=EffectKind.SEND_STATUS_EMAIL, reason=reason)
    except NamesLearnerError:
        raise ReasonNamesLearnerError(
            "the reason names the learner, and would stay: leave that out"
        ) from None
    if erased is None:
        raise UnknownLearnerError("nobody of this id is known")
    act = new_act(
        actor,
        Action.ERASE,
        {"user_id": user_id},
        number=int(erased.names),
        details=counts(erased),
        reason=reason,
        targets=[Target(mail, before, EffectState.CANCELLED) for mail, before in erased.mails.items()],
        user_id=user_id,
    )
    record(connection, act)
    return erased


def counts(erased: Erased) -> dict[str, Any]:
    """Return what was taken away as numbers."""
    return {
        "names": erased.names,
        "mails": len(erased.mails),
        "messages": erased.messages,
        "reasons": erased.reasons,
        "texts": erased.texts,
    }
