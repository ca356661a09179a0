"""The languages of the mails: gettext catalogues, the direction of writing, and dates.

A catalogue is `<language>/LC_MESSAGES/mail.mo` in a folder of catalogues. `make catalogues` writes those of this
release.

A catalogue also translates the names of the months and the forms of dates. Babel could write dates in every
language, but it takes 36 MB, which is a third of what a worker's installation may take.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from gettext import GNUTranslations, NullTranslations
from pathlib import Path
from unicodedata import bidirectional
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from worker.errors import ConfigurationError

DOMAIN = "mail"
SOURCE = "en"
"""The language of the templates. A text that no catalogue has is in it."""

OWN_CATALOGUES = Path(__file__).parent / "locale"
"""The catalogues of this release."""

_ANY_ZONE = "Etc/UTC"
"""Is in every database of time zones."""

_NO_ZONES = ("localtime", "posix", "right/")
"""Files beside the zones that are not of the IANA database's names, such as the machine's own zone."""

RIGHT_TO_LEFT = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})
FIRST_STRONG_ISOLATE, POP_DIRECTIONAL_ISOLATE = "\u2068", "\u2069"


def translated(text: str) -> str:
    """Mark a text for the extraction (Makefile, `catalogues`). It is translated where it is used."""
    return text


_MONTHS = (
    translated("January"),
    translated("February"),
    translated("March"),
    translated("April"),
    translated("May"),
    translated("June"),
    translated("July"),
    translated("August"),
    translated("September"),
    translated("October"),
    translated("November"),
    translated("December"),
)
_DATE = translated("%(day)s %(month)s %(year)s")
_MOMENT = translated("%(date)s, %(time)s (%(zone)s)")


@dataclass(frozen=True, slots=True)
class Language:
    """A language that mails are written in.

    Parameters:
        tag: its BCP 47 tag.
        translations: its texts. One that is missing is in English.
    """

    tag: str
    translations: NullTranslations

    @property
    def direction(self) -> str:
        """The direction of its script, as the HTML attribute `dir` has it: ltr or rtl."""
        return "rtl" if self.tag.split("-")[0].lower() in RIGHT_TO_LEFT else "ltr"

    def date(self, day: date) -> str:
        """Write a date, for example 28 November 2026."""
        month = self.translations.gettext(_MONTHS[day.month - 1])
        return self.translations.gettext(_DATE) % {"day": day.day, "month": month, "year": day.year}

    def moment(self, at: datetime) -> str:
        """Write a date and a time of day with its zone, for example 28 November 2026, 14:05 (Europe/Madrid)."""
        zone = self.isolated(str(at.tzinfo))
        values = {"date": self.date(at), "time": f"{at:%H:%M}", "zone": zone}
        return self.translations.gettext(_MOMENT) % values

    def isolated(self, text: str) -> str:
        """Return a text that keeps its own direction inside a sentence of this language.

        Without the isolating characters, a name in another script would move the punctuation around it.
        """
        directions = {bidirectional(char) for char in text}
        if self.direction == "ltr" and not directions & {"R", "AL", "AN"}:
            return text
        return f"{FIRST_STRONG_ISOLATE}{text}{POP_DIRECTIONAL_ISOLATE}"


class Catalogues:
    """The catalogues in some folders. Where two folders have the same text, the first one counts.

    Example:
        >>> catalogues = Catalogues([OWN_CATALOGUES])
        >>> catalogues.language("es-MX").date(date(2026, 11, 28))
        '28 de noviembre de 2026'
        >>> catalogues.language("tlh").date(date(2026, 11, 28))
        '28 November 2026'
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Read the catalogues.

        Raises:
            ConfigurationError: one of them cannot be read.
        """
        files: dict[str, list[Path]] = {SOURCE: []}
        for folder in folders:
            for file in sorted(folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo")):
                files.setdefault(file.parts[-3].replace("_", "-"), []).append(file)
        by_tag = {tag.lower(): of_tag for tag, of_tag in files.items()}
        self._languages = {tag.lower(): Language(tag, _translations(tag, by_tag)) for tag in files}

    @property
    def tags(self) -> list[str]:
        """The tags of the languages that there are, English first."""
        return [language.tag for language in self._languages.values()]

    def language(self, wanted: str | None) -> Language:
        """Return the language nearest to the one that is wanted: es for es-MX, English for one that is missing.

        Parameters:
            wanted: a BCP 47 tag, or None when nothing is known.
        """
        tags = (tag for tag in _ever_shorter(wanted or SOURCE) if tag in self._languages)
        return self._languages[next(tags, SOURCE)]


def _ever_shorter(tag: str) -> Iterator[str]:
    """Yield a tag and what it begins with: zh-hant-tw, zh-hant, zh (the look-up of RFC 4647)."""
    subtags = tag.lower().split("-")
    for number in range(len(subtags), 0, -1):
        yield "-".join(subtags[:number])


def _translations(tag: str, files: Mapping[str, Sequence[Path]]) -> NullTranslations:
    tags = dict.fromkeys([*_ever_shorter(tag), SOURCE])
    translations = NullTranslations()
    for file in reversed([file for one in tags for file in files.get(one, ())]):
        catalogue = _read(file)
        catalogue.add_fallback(translations)
        translations = catalogue
    return translations


def _read(file: Path) -> GNUTranslations:
    try:
        with file.open("rb") as stream:
            return GNUTranslations(stream)
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise ConfigurationError(
            f"the catalogue {file} cannot be read ({type(error).__name__}); write it anew with msgfmt"
        ) from None


def zone_named(name: str | None) -> tzinfo:
    """Return a time zone by its IANA name. It is UTC where the name is None, or unknown to this system."""
    if name is None or name.startswith(_NO_ZONES):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def missing_zones() -> list[str]:
    """Return a warning if this system knows no time zones, else nothing."""
    if zone_named(_ANY_ZONE) is not UTC:
        return []
    return ["this system knows no time zones, so mails tell times in UTC: install tzdata (system or PyPI)"]
