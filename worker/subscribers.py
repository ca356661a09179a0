"""The sorts of subscribers to events: tables of the file of subscriptions (docs/contract.md, "Events out")."""

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from events.broker_url import Kind, read_broker_url
from events.event_types import check_patterns, has_type
from events.fields import Frozen
from events.webhooks import read_secret
from worker.addresses import LOCALHOST, Address, is_loopback, is_public, literal
from worker.urls import read_url

if TYPE_CHECKING:
    import httpx

RESERVED = (
    "invigilator.commands",
    "invigilator.effects",
    "amq.",
    "celery",
    "reply.celery",
    "_kombu.",
    "unacked",
)
"""Names that begin so are those of our own queues, or of what RabbitMQ, Celery and kombu have in the broker."""

EPOCH = ".epoch"
"""What the key beside a stream ends with."""
MAX_LEN = 2**63 - 1
"""The longest stream that Redis takes a number for."""

_URL = "must be https://host[:port][/path], without user or fragment"


def _free(value: str) -> str:
    if value.startswith(RESERVED):
        raise ValueError(f"must not begin with {', '.join(RESERVED)}")
    if value.endswith(EPOCH):
        raise ValueError(f"must not end with {EPOCH}")
    return value


Target = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern="^[!-~]+$"), AfterValidator(_free)
]
"""The name of an exchange or a stream."""


class Subscriber(Frozen):
    """A table of the file.

    `secret` names the fields that are kept nowhere but in the file.
    """

    secret: ClassVar[frozenset[str]] = frozenset()

    def definition(self) -> dict[str, Any]:
        """Return what the database keeps of it."""
        return self.model_dump(exclude=set(self.secret))


class Api(Subscriber):
    """Those who read the log over HTTP. They remember by themselves how far they have come."""


class Listener(Subscriber):
    """Who hears of the events of some types.

    Parameters:
        types: shell patterns, such as `exam.attempt.*`. An event is told if its type fits one of them.
    """

    types: list[str] = Field(default_factory=lambda: ["*"], min_length=1)

    @field_validator("types")
    @classmethod
    def _fits(cls, value: list[str]) -> list[str]:
        check_patterns(value)
        return value

    def wants(self, event_type: str) -> bool:
        """Return whether the events of a type are told."""
        return has_type(event_type, self.types)


class Feed(Listener):
    """A feed: the events of some types go to the broker, in order.

    Parameters:
        name: of the topic exchange on RabbitMQ, or of the stream on Redis.
        max_len: how many events a stream keeps, about. RabbitMQ has queues in its place.
    """

    name: Target
    max_len: Annotated[int, Field(ge=1, le=MAX_LEN)] = 1_000_000


class OpenEdx(Subscriber):
    """The event bus of an Open edX site: what happens to attempts goes to a stream of its Redis, in order.

    Parameters:
        redis: the URL of the site's Redis server, in the form of the broker's.
        topic: the stream's whole name, the site's prefix included.
        max_len: how many events the stream keeps, about.
    """

    secret: ClassVar[frozenset[str]] = frozenset({"redis"})

    redis: SecretStr
    topic: Target
    max_len: Annotated[int, Field(ge=1, le=MAX_LEN)] = 10_000

    @property
    def stream(self) -> tuple[object, ...]:
        """What tells the stream from any other one, however its server is written."""
        url = read_broker_url(self.redis.get_secret_value())
        hosts = frozenset((host.lower(), port) for host, port in url.hosts)
        return hosts, url.sentinels and url.sentinels.master_name, url.database, self.topic

    @field_validator("redis")
    @classmethod
    def _reads(cls, value: SecretStr) -> SecretStr:
        if read_broker_url(value.get_secret_value()).kind is Kind.AMQP:
            raise ValueError("must start with redis://, rediss://, sentinel:// or sentinels://")
        return value


class Webhook(Listener):
    """A webhook: each event of some types is a request to a URL (Standard Webhooks 1.0).

    Parameters:
        url: https, or http to this machine. Its path and query may be secrets, so only its origin is shown.
        secrets: all that are live. Each signs.
        order: `learner` for one event of a learner at a time, oldest first. `none` for any order.
        allow_private: whether it may lead to a private or reserved address.
    """

    secret: ClassVar[frozenset[str]] = frozenset({"secrets"})

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

    @cached_property
    def read_url(self) -> "httpx.URL":
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
        return super().definition() | {"url": self.origin}


def _read_url(text: str) -> "httpx.URL":
    try:
        return read_url(text)
    except ValueError:
        raise ValueError(_URL) from None
