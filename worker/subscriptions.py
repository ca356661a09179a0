"""Reads the file of subscriptions: who is told what happens (docs/contract.md, "Events out")."""

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator

from events.event_types import EVENT_TYPES
from events.fields import Frozen
from worker.errors import ConfigurationError
from worker.textfiles import NotTextError, read_text

API = "api"
RESERVED = ("invigilator.commands", "invigilator.effects", "amq.")
"""Names that begin so are those of our own queues, or of RabbitMQ's exchanges."""


class Feed(Frozen):
    """A feed: the events of some types go to the broker, in order.

    Parameters:
        name: of the topic exchange on RabbitMQ, or of the stream on Redis.
        types: shell patterns, such as `exam.attempt.*`. An event goes to the feed if its type fits one of them.
        max_len: how many events a stream keeps, about. RabbitMQ has queues in its place.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern="^[!-~]+$")]
    types: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    max_len: Annotated[int, Field(ge=1)] = 1_000_000

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value.startswith(RESERVED):
            raise ValueError(f"must not begin with {', '.join(RESERVED)}")
        return value

    @field_validator("types")
    @classmethod
    def _fits(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not any(fnmatchcase(name, pattern) for name in EVENT_TYPES):
                raise ValueError(f"each must fit one of {', '.join(EVENT_TYPES)}")
        return value

    def wants(self, event_type: str) -> bool:
        """Return whether the events of a type go to the feed."""
        return any(fnmatchcase(event_type, pattern) for pattern in self.types)


class Api(Frozen):
    """Those who read the log over HTTP. They remember by themselves how far they have come."""


class Subscriptions(Frozen):
    """Who subscribes to events: what the file says.

    Parameters:
        api: not None when the log is kept for those who read it over HTTP.
        feed: the feeds, by name.
    """

    api: Api | None = None
    feed: dict[str, Feed] = Field(default_factory=dict)

    @field_validator("feed")
    @classmethod
    def _apart(cls, value: dict[str, Feed]) -> dict[str, Feed]:
        if len({one.name for one in value.values()}) < len(value):
            raise ValueError("two feeds have one `name`: each needs its own")
        return value

    def feeds(self) -> dict[str, Feed]:
        """Return the feeds by the names of their subscribers, such as `feed.lms`."""
        return {f"feed.{name}": one for name, one in self.feed.items()}

    def definitions(self) -> dict[str, dict[str, Any]]:
        """Return what the database keeps of each subscriber."""
        kept = {name: feed.model_dump() for name, feed in self.feeds().items()}
        return kept | ({} if self.api is None else {API: {}})

    def without_cursor(self) -> Sequence[str]:
        """Return the names of the subscribers that keep their own cursors."""
        return [] if self.api is None else [API]


def load_subscriptions(path: Path | None) -> Subscriptions:
    """Read the file of subscriptions. Without one, nobody subscribes.

    Parameters:
        path: a TOML file, or None.

    Raises:
        ConfigurationError: the file cannot be read, or says what is not allowed. The text is one line, with the
            file, the key and what is allowed.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "subscriptions.toml")
        ...     _ = file.write_text('[feed.lms]\\nname = "exams"\\ntypes = ["exam.attempt.*"]\\n')
        ...     subscriptions = load_subscriptions(file)
        >>> subscriptions.feeds()["feed.lms"].wants("exam.attempt.created.v1")
        True
        >>> subscriptions.feeds()["feed.lms"].wants("exam.effect.failed.v1")
        False
    """
    if path is None:
        return Subscriptions()
    try:
        document = tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigurationError(f"subscriptions file {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, NotTextError) as error:
        raise ConfigurationError(f"subscriptions file {path}: is no TOML: {error}") from None
    try:
        return Subscriptions.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(f"subscriptions file {path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f'{where}: is not allowed; see docs/contract.md, "Events out"'
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
