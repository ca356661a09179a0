"""The wire: what a command looks like, how it reaches a broker, and the client that an LMS installs.

- The message: `commands` (what can be asked for), `vocabulary` (statuses and codes), `fields`, `times`, `envelope`
  (bytes to command and back), `signing`, `schemas` (JSON Schemas of the commands).
- What is told: `event_types` (the data of each event), `cloudevent` (an event's members).
- The way to the broker: `broker_url` and `tls` (what a URL means), `connecting` with `redis_transport`,
  `amqp_transport` and `redis_server`, `sharding` (which queue).
- The publisher: `publisher` with `methods` (one for each command), `sender`, and `executor` (deadlines).
- The answers: `client` with `answers` (over HTTP), `webhooks`. `django` is an outbox for those who use Django.
- `errors`: the root of every error of this project, and the errors of the wire.

This folder is two packages: `events` of the worker's distribution, and `invigilator_client` of the one that an LMS
installs (`pyproject.toml` here). So its modules import each other relatively, and nothing else of the project. The
names below are loaded when they are first used: who reads the vocabulary loads no broker.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answers import (
        ApiError,
        Attempt,
        AttemptCodeTakenError,
        AttemptExistsError,
        AttemptNotFoundError,
        CommandQuarantinedError,
        CommandRejectedError,
        ExamNotFoundError,
        IllegalTransitionError,
        LearnerNotFoundError,
        NotAllowedError,
        OutcomePendingError,
        RateLimitedError,
        StaleAttemptError,
        UnauthorizedError,
        UnavailableError,
        UnknownStatusError,
    )
    from .client import Client
    from .errors import (
        InvalidMessageError,
        InvalidWebhookError,
        InvigilatorError,
        PublishError,
        ShardsMismatchError,
        UnsuitableBrokerError,
    )
    from .publisher import AsyncPublisher, Publisher
    from .webhooks import verify_webhook
else:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_MODULES.get(name, 'answers')}", __name__), name)


__all__ = [
    "ApiError",
    "AsyncPublisher",
    "Attempt",
    "AttemptCodeTakenError",
    "AttemptExistsError",
    "AttemptNotFoundError",
    "Client",
    "CommandQuarantinedError",
    "CommandRejectedError",
    "ExamNotFoundError",
    "IllegalTransitionError",
    "InvalidMessageError",
    "InvalidWebhookError",
    "InvigilatorError",
    "LearnerNotFoundError",
    "NotAllowedError",
    "OutcomePendingError",
    "PublishError",
    "Publisher",
    "RateLimitedError",
    "ShardsMismatchError",
    "StaleAttemptError",
    "UnauthorizedError",
    "UnavailableError",
    "UnknownStatusError",
    "UnsuitableBrokerError",
    "verify_webhook",
]

_MODULES = {
    "AsyncPublisher": "publisher",
    "Client": "client",
    "InvalidMessageError": "errors",
    "InvalidWebhookError": "errors",
    "InvigilatorError": "errors",
    "PublishError": "errors",
    "Publisher": "publisher",
    "ShardsMismatchError": "errors",
    "UnsuitableBrokerError": "errors",
    "verify_webhook": "webhooks",
}
"""Where the names are that are not in `answers`."""
