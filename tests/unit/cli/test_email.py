"""`invigilator email preview`: what a mail looks like with the settings as they are."""

from pathlib import Path

import pytest

from tests.commandline import CommandLine
from tests.zones import no_time_zones


def test_it_prints_subject_and_text(cli: CommandLine) -> None:
    ran = cli("email", "preview", "submitted")
    assert (ran.status, ran.err) == (0, "")
    subject, _, text = ran.out.partition("\n\n")
    assert subject == "Subject: Your proctored exam was submitted: Mechanics (final)"
    assert text.startswith("Hello Ada Lovelace,\n")


def test_it_is_that_of_the_provider_in_the_language(cli: CommandLine, tmp_path: Path) -> None:
    # Given a policy and a template of a provider
    (tmp_path / "policies.toml").write_text('[providers.acme]\nreview_days = 3\ncontact = "Bob"\n')
    folder = tmp_path / "templates/providers/acme"
    folder.mkdir(parents=True)
    (folder / "layout.html").write_text(
        "<p>{% block title %}{% endblock %}</p> {{ contact }} {{ review_by }}"
    )
    cli.monkeypatch.setenv("INVIGILATOR_POLICIES_FILE", "policies.toml")
    cli.monkeypatch.setenv("INVIGILATOR_TEMPLATES_DIR", "templates")
    # When a mail of it is looked at, then both are used
    ran = cli(
        "email", "preview", "submitted", "--provider", "acme", "--language", "es-MX", "--html", "mail.html"
    )
    assert (ran.status, ran.err) == (0, "")
    assert "póngase en contacto con: Bob\n" in ran.out
    html = "<p>Se ha entregado su examen supervisado</p> Bob 1 de diciembre de 2026"
    assert (tmp_path / "mail.html").read_text() == html
    # and as JSON it is the same
    document = cli("email", "preview", "submitted", "--provider", "acme", "--language", "es", "--json").json
    assert (document["language"], document["html"]) == ("es", html)
    assert ran.out == f"Subject: {document['subject']}\n\n{document['text']}"


def test_a_language_without_a_catalogue_is_told(cli: CommandLine) -> None:
    ran = cli("email", "preview", "verified", "--language", "de")
    assert ran.err == "invigilator: there is no catalogue for 'de': this is en\n"
    assert ran.out.startswith("Subject: Your proctored exam was verified: ")


def test_a_provider_that_nobody_names_is_told(cli: CommandLine) -> None:
    ran = cli("email", "preview", "verified", "--provider", "acmee")
    assert ran.err == (
        "invigilator: neither policies nor templates name the provider 'acmee': this is the default\n"
    )


def test_a_machine_without_time_zones_is_told(cli: CommandLine) -> None:
    with no_time_zones():
        ran = cli("email", "preview", "verified")
    assert ran.err.startswith("invigilator: this system knows no time zones, ")
    assert len(ran.err.splitlines()) == 1
    assert "Verified: 28 November 2026, 09:30 (UTC)\n" in ran.out


@pytest.mark.parametrize(
    ("arguments", "status", "problem"),
    [
        (["declined"], 2, "'declined' is not one of 'submitted', 'verified', 'rejected'"),
        ([], 2, "Missing argument"),
        (["verified", "--html", "nowhere/mail.html"], 1, "No such file or directory: nowhere/mail.html"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    cli: CommandLine, arguments: list[str], status: int, problem: str
) -> None:
    ran = cli("email", "preview", *arguments)
    assert ran.status == status
    assert problem in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_template_that_cannot_be_used_is_told(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "submitted.jinja").write_text("")
    cli.monkeypatch.setenv("INVIGILATOR_TEMPLATES_DIR", str(tmp_path))
    ran = cli("email", "preview", "submitted")
    assert (ran.status, ran.out) == (1, "")
    assert f"INVIGILATOR_TEMPLATES_DIR {tmp_path}: submitted.jinja: is not looked at" in ran.err
