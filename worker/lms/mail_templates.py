"""Renders the mails to learners from templates: subject, text and HTML for each status that is mailed.

`<status>.jinja` has the words of a mail, each once, as blocks. It extends `layout`, which is another file for each
part and arranges the words. docs/mails.md says what a template may use, and how a provider gets its own.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
)

from events.vocabulary import Status
from worker.errors import ConfigurationError
from worker.lms.mail_language import OWN_CATALOGUES, Catalogues, Language, translated, zone_named
from worker.rules.policy import MAIL_STATUSES, MailSettings

OWN_TEMPLATES = Path(__file__).parent / "templates"
SETTING = "INVIGILATOR_TEMPLATES_DIR"
OF_EVERYBODY, OF_PROVIDERS = "default", "providers"
"""The folders in `TEMPLATES_DIR`, named as the tables of the policies file are."""

SUBJECT, TEXT, HTML = "layout.subject.txt", "layout.txt", "layout.html"

_NOT_IN_A_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailFacts:
    """What a mail to a learner is about.

    Parameters:
        status: that the attempt has reached; one of `MAIL_STATUSES`.
        at: when it did, aware.
        learner_name: the full name, or the username when no full name is known.
        exam_name: the name of the exam in the LMS.
        course_id: the id of the course in the LMS.
        course_name: the name of the course, or None when it is unknown. The mail then says `your course`.
        gives_credit: whether the course does.
        provider: the proctoring provider of the course, whose templates are used; None when it names none.
        settings: what the policy of that provider tells.
        language: the learner's, a BCP 47 tag; None when it is unknown.
        time_zone: the learner's, an IANA name; None when it is unknown.
    """

    status: Status
    at: datetime
    learner_name: str
    exam_name: str
    course_id: str
    course_name: str | None = None
    gives_credit: bool = True
    provider: str | None = None
    settings: MailSettings = field(default_factory=MailSettings)
    language: str | None = None
    time_zone: str | None = None


@dataclass(frozen=True, slots=True)
class MailText:
    """The rendered parts of a mail. The subject is a single line."""

    subject: str
    text: str
    html: str


class MailTemplates:
    """The templates and catalogues of every provider.

    Example:
        >>> facts = MailFacts(
        ...     status=Status.SUBMITTED,
        ...     at=datetime(2026, 11, 28, 9, 30, tzinfo=UTC),
        ...     learner_name="Ada",
        ...     exam_name="Mechanics",
        ...     course_id="phys",
        ...     language="es",
        ... )
        >>> MailTemplates().render(facts).subject
        'Se ha entregado su examen supervisado: Mechanics'
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Find the templates, and try those that are not ours.

        Parameters:
            folder: has templates that are used instead of ours: those in its folder `default` for everybody, and
                those in `providers/NAME` for one provider.

        Raises:
            ConfigurationError: the folder, a template or a catalogue cannot be used.
        """
        self._of_providers: dict[str, _Templates] = {}
        if folder is None:
            self._of_everybody = _Templates([])
            return
        _check_folder(folder)
        of_everybody = folder / OF_EVERYBODY
        self._of_everybody = _Templates([of_everybody])
        self._of_providers = {
            provider.name: _Templates([provider, of_everybody])
            for provider in sorted(folder.glob(f"{OF_PROVIDERS}/*/"))
        }
        for templates in (self._of_everybody, *self._of_providers.values()):
            templates.try_out()

    def render(self, facts: MailFacts) -> MailText:
        """Render a mail.

        Raises:
            ValueError: there is no mail for the status.
            jinja2.TemplateError: a template of `TEMPLATES_DIR` cannot be rendered.
        """
        if facts.status not in MAIL_STATUSES:
            raise ValueError(f"no mail is written for {facts.status}")
        return self._of(facts.provider).render(facts)

    @property
    def providers(self) -> Collection[str]:
        """The names of the providers that have templates or catalogues of their own."""
        return self._of_providers

    def language(self, provider: str | None, wanted: str | None) -> Language:
        """Return the language in which a mail is written, as `Catalogues.language` does."""
        return self._of(provider).catalogues.language(wanted)

    def _of(self, provider: str | None) -> "_Templates":
        return self._of_providers.get(provider or "", self._of_everybody)


class _Templates:
    """Templates and catalogues from some folders, else ours."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self.catalogues = Catalogues([*(folder / "locale" for folder in folders), OWN_CATALOGUES])
        loader = FileSystemLoader([*folders, OWN_TEMPLATES])
        self._environments = {layout: _environment(loader, layout) for layout in (SUBJECT, TEXT, HTML)}

    def render(self, facts: MailFacts) -> MailText:
        values = _values(facts, self.catalogues.language(facts.language))
        # The layouts are in this order, too.
        subject, text, html = (
            environment.get_template(f"{facts.status}.jinja").render(values, layout=layout)
            for layout, environment in self._environments.items()
        )
        return MailText(" ".join(subject.split()), text, html)

    def try_out(self) -> None:
        """Render a mail of each status in each language, with all that may be known and with nothing.

        Raises:
            ConfigurationError: a template cannot be rendered.
        """
        for status, language in product(sorted(MAIL_STATUSES), self.catalogues.tags):
            known = replace(sample(status), language=language)
            unknown = replace(
                known, course_name=None, gives_credit=False, settings=MailSettings(), time_zone=None
            )
            for facts in (known, unknown):
                try:
                    self.render(facts)
                except Exception as error:  # noqa: BLE001 - a template calls what it likes
                    place = f"{self.folders[0]}: {status}.jinja"
                    raise ConfigurationError(
                        f"{SETTING}: {place}: {_explain(error)} (language {language})"
                    ) from None


def sample(status: Status) -> MailFacts:
    """Make up the facts of a mail, with everything that may be known."""
    return MailFacts(
        status=status,
        at=datetime(2026, 11, 28, 9, 30, tzinfo=UTC),
        learner_name="Ada Lovelace",
        exam_name="Mechanics (final)",
        course_id="course-v1:acme+phys",
        course_name="Physics 101",
        settings=MailSettings(
            review_days=5,
            contact="Acme support",
            contact_url="https://acme.example/help",
            course_url="https://lms.example/courses/{course_id}",
        ),
        time_zone="Europe/Madrid",
    )


def _check_folder(folder: Path) -> None:
    try:
        names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    except OSError as error:
        raise ConfigurationError(f"{SETTING} {folder}: cannot be read: {error.strerror}") from None
    if unknown := sorted(names - {OF_EVERYBODY, OF_PROVIDERS}):
        raise ConfigurationError(
            f"{SETTING} {folder}: {unknown[0]}: is not looked at; "
            f"templates are in {OF_EVERYBODY} and {OF_PROVIDERS}/NAME"
        )


def _environment(loader: FileSystemLoader, layout: str) -> Environment:
    environment = Environment(
        loader=loader,
        autoescape=layout == HTML,  # noqa: S701 - the other parts are no HTML
        extensions=["jinja2.ext.i18n"],
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,  # otherwise Jinja checks the template files for every mail
    )
    environment.policies["ext.i18n.trimmed"] = True
    return environment


def _values(facts: MailFacts, language: Language) -> dict[str, Any]:
    settings = facts.settings
    at = facts.at.astimezone(zone_named(facts.time_zone))
    days = settings.review_days
    course_name = _one_line(facts.course_name or "")
    your_course = language.translations.gettext(translated("your course"))
    return {
        # What Jinja's `trans` calls. The environments are those of all languages.
        "gettext": language.translations.gettext,
        "ngettext": language.translations.ngettext,
        "language": language.tag,
        "direction": language.direction,
        "status": str(facts.status),
        "provider": facts.provider,
        "learner_name": language.isolated(_one_line(facts.learner_name)),
        "exam_name": language.isolated(_one_line(facts.exam_name)),
        "course_name": language.isolated(course_name) if course_name else your_course,
        "gives_credit": facts.gives_credit,
        "at": language.moment(at),
        "review_days": days,
        "review_by": None if days is None else language.date(at.date() + timedelta(days)),
        "contact": language.isolated(settings.contact) if settings.contact else None,
        "contact_url": settings.contact_url,
        "course_url": settings.course_link(facts.course_id),
    }


def _one_line(name: str) -> str:
    """Return a name on one line, without control characters and lone surrogates.

    A line break would end a mail header. A lone surrogate cannot be encoded. A character that controls the
    direction of writing would turn around what follows it.
    """
    return " ".join(_NOT_IN_A_NAME.sub(" ", name).split())


def _explain(error: Exception) -> str:
    if isinstance(error, TemplateSyntaxError):
        return f"{error.message} ({error.name}, line {error.lineno})"
    return str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
