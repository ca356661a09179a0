"""Reads the file of subscriptions: who is told what happens (docs/contract.md, "Events out")."""

import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from events.broker_url import Kind, read_broker_url
from events.event_types import EVENT_TYPES
from events.fields import Frozen
from worker.errors import ConfigurationError
from worker.textfiles import NotTextError, read_text

API = "api"
RESERVED = ("invigilator.commands", "invigilator.effects", "amq.")
"""Names that begin so are those of our own queues, or of RabbitMQ's exchanges."""


Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern="^[!-~]+$")]


def _free(value: str) -> str:
    if value.startswith(RESERVED):
        raise ValueError(f"must not begin with {', '.join(RESERVED)}")
    return value


class Subscriber(Frozen):
    """A table of the file: one who has a cursor in the log.

    `secret` names the fields that are kept nowhere but in the file.
    """

    secret: ClassVar[frozenset[str]] = frozenset()

    def definition(self) -> dict[str, Any]:
        """Return what the database keeps of it."""
        return self.model_dump(exclude=set(self.secret))


class Feed(Subscriber):
    """A feed: the events of some types go to the broker, in order.

    Parameters:
        name: of the topic exchange on RabbitMQ, or of the stream on Redis.
        types: shell patterns, such as `exam.attempt.*`. An event goes to the feed if its type fits one of them.
        max_len: how many events a stream keeps, about. RabbitMQ has queues in its place.
    """

    name: Annotated[Name, AfterValidator(_free)]
    types: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    max_len: Annotated[int, Field(ge=1)] = 1_000_000

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


class OpenEdx(Subscriber):
    """The event bus of an Open edX site: what happens to attempts goes to a stream of its Redis, in order.

    Parameters:
        redis: the URL of the site's Redis server, in the form of the broker's.
        topic: the stream's whole name, the site's prefix included.
        max_len: how many events the stream keeps, about.
    """

    secret: ClassVar[frozenset[str]] = frozenset({"redis"})

    redis: SecretStr
    topic: Annotated[Name, AfterValidator(_free)]
    max_len: Annotated[int, Field(ge=1)] = 10_000

    @field_validator("redis")
    @classmethod
    def _reads(cls, value: SecretStr) -> SecretStr:
        if read_broker_url(value.get_secret_value()).kind is Kind.AMQP:
            raise ValueError("must start with redis://, rediss://, sentinel:// or sentinels://")
        return value


class Api(Frozen):
    """Those who read the log over HTTP. They remember by themselves how far they have come."""


class Subscriptions(Frozen):
    """Who subscribes to events: what the file says.

    Parameters:
        api: not None when the log is kept for those who read it over HTTP.
        feed: the feeds, by name.
        openedx: the event buses of Open edX sites, by name.
    """

    api: Api | None = None
    feed: dict[str, Feed] = Field(default_factory=dict)
    openedx: dict[str, OpenEdx] = Field(default_factory=dict)

    @field_validator("feed")
    @classmethod
    def _apart(cls, value: dict[str, Feed]) -> dict[str, Feed]:
        if len({one.name for one in value.values()}) < len(value):
            raise ValueError("two feeds have one `name`: each needs its own")
        return value

    @field_validator("openedx")
    @classmethod
    def _streams_apart(cls, value: dict[str, OpenEdx], info: ValidationInfo) -> dict[str, OpenEdx]:
        if len({(one.redis, one.topic) for one in value.values()}) < len(value):
            raise ValueError("two have one `topic` on one `redis`: each needs its own")
        if {one.topic for one in value.values()} & {one.name for one in info.data.get("feed", {}).values()}:
            raise ValueError(
                "a `topic` is the `name` of a feed, which may be on the same server: choose another"
            )
        return value

    def published(self) -> dict[str, Feed | OpenEdx]:
        """Return those to whom the relay publishes, by the names of their tables, such as `feed.lms`."""
        feeds = {f"feed.{name}": one for name, one in self.feed.items()}
        return feeds | {f"openedx.{name}": one for name, one in self.openedx.items()}

    def definitions(self) -> dict[str, dict[str, Any]]:
        """Return what the database keeps of each subscriber."""
        kept = {name: one.definition() for name, one in self.published().items()}
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
        >>> subscriptions.feed["lms"].wants("exam.attempt.created.v1")
        True
        >>> subscriptions.feed["lms"].wants("exam.effect.failed.v1")
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
