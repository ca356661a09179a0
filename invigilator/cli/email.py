"""`invigilator email`: shows what the mails to learners look like."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import click

from events.vocabulary import Status
from invigilator.cli.options import JSON, EnumChoice
from invigilator.cli.output import print_document, warn

app = click.Group("email", help="Look at the mails to learners.", no_args_is_help=False)


@app.command("preview")
@click.argument("status", type=EnumChoice([Status.SUBMITTED, Status.VERIFIED, Status.REJECTED]))
@click.option("--provider", metavar="P", help="With the templates and the policy of this provider.")
@click.option(
    "--language", metavar="L", help="In this language, such as es or ar-EG. The default is English."
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Also write the HTML part to this file.",
)
@JSON
def preview(
    status: Status, provider: str | None, language: str | None, html_file: Path | None, as_json: bool
) -> None:
    """Print the subject and the text of a mail with made-up names. Nothing is sent."""
    from worker.lms.mail_language import missing_zones
    from worker.lms.mail_templates import MailTemplates, sample
    from worker.policies import load_policies
    from worker.settings import load

    settings = load()
    templates = MailTemplates(settings.templates_dir)
    policies = load_policies(settings.policies_file)
    told = policies.of(provider).mail
    if provider is not None and provider not in {*templates.providers, *policies.providers}:
        warn(f"neither policies nor templates name the provider {provider!r}: this is the default")
    facts = replace(sample(status), provider=provider, settings=told, language=language)
    written = templates.language(provider, language)
    if language is not None and not language.lower().startswith(written.tag.lower()):
        warn(f"there is no catalogue for {language!r}: this is {written.tag}")
    for line in missing_zones():
        warn(line)
    mail = templates.render(facts)
    if html_file is not None:
        html_file.write_text(mail.html, encoding="utf-8")
    if as_json:
        print_document({"language": written.tag, **asdict(mail)}, as_json)
    else:
        sys.stdout.write(f"Subject: {mail.subject}\n\n{mail.text}")
