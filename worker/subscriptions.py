"""Reads the file of subscriptions: who is told what happens (docs/contract.md, "Events out")."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, StringConstraints, ValidationError, ValidationInfo, field_validator

from events.fields import Frozen
from worker.errors import ConfigurationError
from worker.misspelt import meant
from worker.subscribers import Api, Feed, OpenEdx, Subscriber, Webhook
from worker.textfiles import read_toml

T = TypeVar("T", bound=Subscriber)

API = "api"

Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,64}$")]
"""The name of a table: it is shown in labels."""


class Subscriptions(Frozen):
    """Who subscribes to events: what the file says. Each sort of subscriber is a table of tables, by name.

    Parameters:
        api: not None when the log is kept for those who read it over HTTP.
        feed: the feeds.
        openedx: the event buses of Open edX sites.
        webhook: the webhooks.
    """

    api: Api | None = None
    feed: dict[Name, Feed] = Field(default_factory=dict)
    openedx: dict[Name, OpenEdx] = Field(default_factory=dict)
    webhook: dict[Name, Webhook] = Field(default_factory=dict)

    @field_validator("feed")
    @classmethod
    def _apart(cls, value: dict[str, Feed]) -> dict[str, Feed]:
        if len({one.name for one in value.values()}) < len(value):
            raise ValueError("two feeds have one `name`: each needs its own")
        return value

    @field_validator("openedx")
    @classmethod
    def _streams_apart(cls, value: dict[str, OpenEdx], info: ValidationInfo) -> dict[str, OpenEdx]:
        if len({one.stream for one in value.values()}) < len(value):
            raise ValueError("two have one `topic` on one `redis`: each needs its own")
        if {one.topic for one in value.values()} & {one.name for one in info.data.get("feed", {}).values()}:
            raise ValueError(
                "a `topic` is the `name` of a feed, which may be on the same server: choose another"
            )
        return value

    def published(self) -> dict[str, Feed | OpenEdx]:
        """Return those to whom the relay publishes, by the names of their subscribers, such as `feed.lms`."""
        return _named("feed", self.feed) | _named("openedx", self.openedx)

    def webhooks(self) -> dict[str, Webhook]:
        """Return the webhooks by the names of their subscribers, such as `webhook.acme`."""
        return _named("webhook", self.webhook)

    def definitions(self) -> dict[str, dict[str, Any]]:
        """Return what the database keeps of each subscriber."""
        api = {} if self.api is None else {API: self.api}
        subscribers = api | self.published() | self.webhooks()
        return {name: one.definition() for name, one in subscribers.items()}

    def without_cursor(self) -> Sequence[str]:
        """Return the names of the subscribers that keep their own cursors."""
        return [] if self.api is None else [API]


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
        >>> subscriptions.feed["lms"].wants("exam.attempt.created.v1")
        True
        >>> subscriptions.feed["lms"].wants("exam.effect.failed.v1")
        False
    """
    if path is None:
        return Subscriptions()
    document = read_toml(path, "subscriptions file")
    try:
        return Subscriptions.model_validate(document)
    except ValidationError as error:
        raise ConfigurationError(f"subscriptions file {path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        right = meant(where, Subscriptions.model_fields)
        hint = f"`{right}` is meant" if right else 'see docs/contract.md, "Events out"'
        return f"{where}: is not allowed; {hint}"
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
