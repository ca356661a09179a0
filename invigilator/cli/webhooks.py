"""`invigilator webhooks`: looks at the endpoints, switches them on and off, and tries one."""

import click

from events.errors import InvigilatorError
from invigilator.cli.options import JSON, JSON_LINES, REASON
from invigilator.cli.output import print_document, print_rows

COLUMNS = ("name", "url", "order", "behind", "pending", "failed", "off_since", "reason")

app = click.Group("webhooks", help="Look at webhooks, and switch them on and off.", no_args_is_help=False)


@app.command("list")
@JSON_LINES
def list_(as_json: bool) -> None:
    """List the webhooks, with what they are owed. Of each URL only the origin is shown."""
    from db import deliveries
    from invigilator.cli.database import reading

    with reading() as connection:
        rows = [
            {
                "name": one.name.removeprefix(deliveries.PREFIX),
                **one.definition,
                "behind": one.behind,
                "pending": one.pending,
                "failed": one.failed,
                "off_since": one.off_since,
                "reason": one.reason,
            }
            for one in deliveries.endpoints(connection)
        ]
    print_rows(rows, COLUMNS, as_json, "webhooks")


@app.command("on")
@click.argument("name")
@REASON
@JSON
def on(name: str, reason: str | None, as_json: bool) -> None:
    """Switch a webhook on. What it is owed is sent now."""
    from invigilator.acts import webhooks
    from invigilator.cli.person import acting_person

    with acting_person() as (connection, actor):
        webhooks.switch_on(connection, actor, name, reason)
    print_document({"webhook": name, "on": True}, as_json)


@app.command("off")
@click.argument("name")
@REASON
@JSON
def off(name: str, reason: str | None, as_json: bool) -> None:
    """Switch a webhook off. What it is owed waits. `webhooks list` shows the reason."""
    from invigilator.acts import webhooks
    from invigilator.cli.person import acting_person

    with acting_person() as (connection, actor):
        webhooks.switch_off(connection, actor, name, reason)
    print_document({"webhook": name, "on": False}, as_json)


@app.command("test")
@click.argument("name")
@JSON
def test(name: str, as_json: bool) -> None:
    """Send a webhook one event of the type exam.webhook.test.v1 now, and say what came back.

    It needs no database and no broker. The exit status is 1 if the endpoint has not taken the event.
    """
    from events.cloudevent import source_of
    from worker.errors import ServiceError
    from worker.lms.ports import Deadline
    from worker.lms.webhooks import HttpWebhooks, trial_delivery
    from worker.settings import load
    from worker.subscriptions import load_subscriptions

    settings = load()
    webhooks = load_subscriptions(settings.subscriptions_file).webhooks()
    delivery = trial_delivery(name, source_of(settings.instance))
    if delivery.subscriber not in webhooks:
        raise InvigilatorError(f"SUBSCRIPTIONS_FILE has no [webhook.{name}]")
    sender, problem = HttpWebhooks(webhooks), None
    try:
        sender.send(delivery, Deadline.after(settings.call_timeout_s))
    except ServiceError as error:
        problem = str(error)
    finally:
        sender.close()
    document = {"webhook": name, "event_id": delivery.event_id, "taken": problem is None, "reason": problem}
    print_document(document, as_json)
    if problem is not None:
        raise click.exceptions.Exit(1)
