"""Reads the file of subscriptions: who is told what happens (docs/contract.md, "Events out")."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import httpx
from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from events.event_types import EVENT_TYPES
from events.fields import Frozen
from events.webhooks import read_secret
from worker.addresses import LOCALHOST, Address, is_loopback, is_public, literal
from worker.errors import ConfigurationError
from worker.textfiles import NotTextError, read_text

API = "api"

T = TypeVar("T")

RESERVED = ("invigilator.commands", "invigilator.effects", "amq.")
"""Names that begin so are those of our own queues, or of RabbitMQ's exchanges."""

_URL = "must be https://host[:port][/path], without user or fragment"

Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,64}$")]
"""The name of a table: it is shown in labels."""


class Listener(Frozen):
    """Who hears of the events of some types.

    Parameters:
        types: shell patterns, such as `exam.attempt.*`. An event is told if its type fits one of them.
    """

    types: list[str] = Field(default_factory=lambda: ["*"], min_length=1)

    @field_validator("types")
    @classmethod
    def _fits(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not any(fnmatchcase(name, pattern) for name in EVENT_TYPES):
                raise ValueError(f"each must fit one of {', '.join(EVENT_TYPES)}")
        return value

    def wants(self, event_type: str) -> bool:
        """Return whether the events of a type are told."""
        return any(fnmatchcase(event_type, pattern) for pattern in self.types)

    def definition(self) -> dict[str, Any]:
        """Return what the database keeps: no secrets."""
        return self.model_dump()


class Feed(Listener):
    """A feed: the events of some types go to the broker, in order.

    Parameters:
        name: of the topic exchange on RabbitMQ, or of the stream on Redis.
        max_len: how many events a stream keeps, about. RabbitMQ has queues in its place.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern="^[!-~]+$")]
    max_len: Annotated[int, Field(ge=1)] = 1_000_000

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value.startswith(RESERVED):
            raise ValueError(f"must not begin with {', '.join(RESERVED)}")
        return value


class Webhook(Listener):
    """A webhook: each event of some types is a request to a URL (Standard Webhooks 1.0).

    Parameters:
        url: https, or http to this machine. Its path and query may be secrets, so only its origin is shown.
        secrets: all that are live. Each signs.
        order: `learner` for one event of a learner at a time, oldest first. `none` for any order.
        allow_private: whether it may lead to a private or reserved address.
    """

    url: SecretStr
    secrets: list[SecretStr] = Field(min_length=1)
    order: Literal["none", "learner"] = "none"
    allow_private: bool = False

    @field_validator("secrets")
    @classmethod
    def _keys(cls, value: list[SecretStr]) -> list[SecretStr]:
        for secret in value:
            read_secret(secret.get_secret_value())
        return value

    @field_validator("url")
    @classmethod
    def _readable(cls, value: SecretStr) -> SecretStr:
        _read_url(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _reachable(self) -> "Webhook":
        address = literal(self.read_url.host)
        if self.read_url.scheme == "http" and not self.is_local:
            raise ValueError(
                "`url` must be https; http is for this machine only, such as http://127.0.0.1:8000/"
            )
        if address is not None and not self.may_reach(address):
            raise ValueError("`url` is a private or reserved address; allow_private = true allows it")
        return self

    @property
    def read_url(self) -> httpx.URL:
        """The URL, in its parts."""
        return _read_url(self.url.get_secret_value())

    @property
    def origin(self) -> str:
        """The URL without what may be a secret, such as `https://acme.example`."""
        url = self.read_url
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    @property
    def is_local(self) -> bool:
        """Whether the URL is written as one of this machine."""
        host = self.read_url.host
        address = literal(host)
        return host == LOCALHOST if address is None else is_loopback(address)

    def may_reach(self, address: Address) -> bool:
        """Return whether a request may go to an address: that of the URL, or what its name stands for."""
        return self.allow_private or (is_loopback(address) if self.is_local else is_public(address))

    def signing_secrets(self) -> list[str]:
        """Return the live secrets."""
        return [secret.get_secret_value() for secret in self.secrets]

    def definition(self) -> dict[str, Any]:
        """Return what the database keeps: no secrets, and of the URL its origin."""
        return self.model_dump(exclude={"secrets"}) | {"url": self.origin}


def _read_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
        url.raw_host.decode("ascii").encode("idna")  # a bad name raises ValueError here, not at each look-up
    except (httpx.InvalidURL, ValueError):
        raise ValueError(_URL) from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.fragment:
        raise ValueError(_URL)
    return url


class Api(Frozen):
    """Those who read the log over HTTP. They remember by themselves how far they have come."""

    def definition(self) -> dict[str, Any]:
        """Return what the database keeps."""
        return {}


class Subscriptions(Frozen):
    """Who subscribes to events: what the file says. Each sort of subscriber is a table of tables, by name.

    Parameters:
        api: not None when the log is kept for those who read it over HTTP.
        feed: the feeds.
        webhook: the webhooks.
    """

    api: Api | None = None
    feed: dict[str, Feed] = Field(default_factory=dict)
    webhook: dict[Name, Webhook] = Field(default_factory=dict)

    @field_validator("feed")
    @classmethod
    def _apart(cls, value: dict[str, Feed]) -> dict[str, Feed]:
        if len({one.name for one in value.values()}) < len(value):
            raise ValueError("two feeds have one `name`: each needs its own")
        return value

    def feeds(self) -> dict[str, Feed]:
        """Return the feeds by the names of their subscribers, such as `feed.lms`."""
        return _named("feed", self.feed)

    def webhooks(self) -> dict[str, Webhook]:
        """Return the webhooks by the names of their subscribers, such as `webhook.acme`."""
        return _named("webhook", self.webhook)

    def definitions(self) -> dict[str, dict[str, Any]]:
        """Return what the database keeps of each subscriber."""
        return {name: one.definition() for name, one in self._subscribers()}

    def without_cursor(self) -> Sequence[str]:
        """Return the names of the subscribers that keep their own cursors."""
        return [] if self.api is None else [API]

    def _subscribers(self) -> Iterator[tuple[str, Api | Listener]]:
        if self.api is not None:
            yield API, self.api
        yield from self.feeds().items()
        yield from self.webhooks().items()


def _named(sort: str, tables: Mapping[str, T]) -> dict[str, T]:
    return {f"{sort}.{name}": one for name, one in tables.items()}


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
