"""`invigilator web` and `invigilator token`: the API, and who may call it."""

import click

from invigilator.cli.options import JSON
from invigilator.cli.output import say, to_json


@click.command("web")
def web() -> None:
    """Serve the HTTP API until SIGTERM."""
    from worker import extras

    extras.need(extras.WEB, "`invigilator web`")

    from invigilator.web.server import serve
    from worker import logs
    from worker.engines import resolve
    from worker.settings import load

    settings = resolve(load())
    logs.configure(settings.log_format, settings.log_level)
    serve(settings)


token = click.Group("token", help="Make tokens of the HTTP API.", no_args_is_help=False)


@token.command("new")
@click.argument("name")
@JSON
def new(name: str, as_json: bool) -> None:
    """Make a token called NAME, and print it once, with the table for the file of API tokens.

    The file holds no token, so it cannot be printed again.
    """
    from invigilator.web.tokens import digest, new_token

    made = new_token()
    if as_json:
        say(to_json({"name": name, "token": made, "sha256": digest(made)}))
        return
    say(f"token: {made}")
    say("")
    say("Give it to whoever calls. Paste this into the file of INVIGILATOR_API_TOKENS_FILE:")
    say("")
    # The name as a JSON string is one of TOML, too.
    say(f"[{to_json(name)}]")
    say(f'sha256 = "{digest(made)}"')
    say('scopes = ["read"]                # and "command", with the next three lines')
    say('# source = "/lms/acme"           # who sends its commands')
    say('# types = ["*"]')
    say('# to_status = ["*"]')
