"""`invigilator pause` and `resume`: a kind of effect that nobody carries out for a while."""

from datetime import datetime
from typing import TYPE_CHECKING

import click

from invigilator.cli.moments import FUTURE
from invigilator.cli.options import JSON, REASON
from invigilator.cli.output import print_document

if TYPE_CHECKING:
    from worker.kinds import EffectKind

KIND = click.argument("kind")


@click.command("pause")
@KIND
@click.option("--until", type=FUTURE, metavar="TIME", help="When it ends by itself: a time, or 2h from now.")
@REASON
@JSON
def pause(kind: str, until: datetime | None, reason: str | None, as_json: bool) -> None:
    """Have nobody carry out effects of a kind, in all processes, until then or until `resume`.

    What is running comes to its end. Paused time does not count for RETRY_FOR_S. A paused cascade is still folded
    in when a command of the learner comes.
    """
    from invigilator.acts import pauses
    from invigilator.cli.person import acting_person

    chosen = _kind(kind)
    with acting_person() as (connection, actor):
        begun = pauses.pause(connection, actor, chosen, until, reason)
    print_document({"kind": kind, "paused": True, **begun.as_json()}, as_json)


@click.command("resume")
@KIND
@REASON
@JSON
def resume(kind: str, reason: str | None, as_json: bool) -> None:
    """End the pause of a kind of effect. What is due is carried out now."""
    from invigilator.acts import pauses
    from invigilator.cli.person import acting_person

    chosen = _kind(kind)
    with acting_person() as (connection, actor):
        ended = pauses.resume(connection, actor, chosen, reason)
    print_document({"kind": kind, "paused": False, "since": ended.since}, as_json)


def _kind(given: str) -> "EffectKind":
    # click would need the kinds at import, and their module takes long to load.
    from worker.kinds import EffectKind

    known = {kind.value: kind for kind in EffectKind}
    if given not in known:
        raise click.BadParameter(f"must be one of {', '.join(known)}", param_hint="KIND")
    return known[given]
