"""Where messages come from and go to: the servers, channels and operations of the AsyncAPI document."""

from collections.abc import Iterable

from events.commands import COMMAND_TYPES
from events.event_types import EVENT_TYPES, WebhookTest
from events.sharding import NEXT_SHARDS_KEY, SHARDS_KEY
from invigilator.asyncapi.messages import OPEN_EDX_TYPES, SIGNED, Node, of_webhooks
from worker.feeds.redis import EVENT_FIELD, epoch_key

AMQP_BINDING = {"bindingVersion": "0.3.0"}
HTTP_BINDING = {"bindingVersion": "0.3.0"}


def servers() -> Node:
    """Return the servers by their names."""
    return {
        "rabbitmq": _server("amqp", "localhost:5672", "`INVIGILATOR_BROKER_URL`, where it is RabbitMQ."),
        "redis": _server("redis", "localhost:6379", "`INVIGILATOR_BROKER_URL`, where it is Redis or Valkey."),
        "listener": _server("https", "localhost", "The host of the `url` of a table `[webhook.NAME]`."),
        "openedx": _server(
            "redis", "localhost:6379", "The Redis of an Open edX site: `redis` of a table `[openedx.NAME]`."
        ),
    }


def channels() -> Node:
    """Return the channels by their names."""
    return {
        "commands": _commands(),
        "feed": _feed(),
        "webhook": _webhook(),
        "openedx": _openedx(),
    }


def operations() -> Node:
    """Return what Invigilator does with each channel."""
    published = {"amqp": {"deliveryMode": 2, "mandatory": False, **AMQP_BINDING}}
    posted = {"http": {"method": "POST", **HTTP_BINDING}}
    return {
        "receiveCommand": _operation("receive", "commands", "Handle a command, once."),
        "publishEvent": _operation("send", "feed", "Publish an event to a feed, at least once.", published),
        "deliverEvent": _operation("send", "webhook", "Deliver an event until it is accepted.", posted),
        "signalOpenEdx": _operation("send", "openedx", "Tell an Open edX site of an attempt, at least once."),
    }


def _commands() -> Node:
    queue = {"durable": True, "exclusive": False, "autoDelete": False}
    return {
        "address": "invigilator.commands.{shard}",
        "title": "Commands in",
        "description": (
            "One queue for each shard. The shard is the CRC-32 of `user_id` modulo the number of shards. A "
            "command without a `user_id` goes to every shard, with the same `id`. `source` and `id` say "
            "which command it is: published twice it is one.\n"
            "RabbitMQ: publish to the default exchange, persistent and mandatory, with confirms.\n"
            f"Redis: `LPUSH` the event, a signed one in its envelope, or either in kombu's. The string "
            f"`{SHARDS_KEY}` holds the number of shards, and `{NEXT_SHARDS_KEY}` the one to come. On RabbitMQ the "
            f"last message of the stream `{SHARDS_KEY}` holds both."
        ),
        "servers": _servers_named("rabbitmq", "redis"),
        "parameters": {"shard": {"description": "A number, counted from 0."}},
        "messages": _messages_named([*COMMAND_TYPES, SIGNED]),
        "bindings": {"amqp": {"is": "queue", "queue": queue, **AMQP_BINDING}},
    }


def _feed() -> Node:
    exchange = {"name": "{name}", "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": "{name}",
        "title": "Events out, to the broker",
        "description": (
            "In order: `sequence` grows. A copy has the `id` and the `sequence` of the first one, so skip "
            "what is not above the last.\n"
            "RabbitMQ: a durable topic exchange. The routing key is the type, and `message_id` is the `id`.\n"
            f"Redis: a stream. The field `{EVENT_FIELD}` of an entry holds the event as JSON. Only the relay "
            f"writes the key `{epoch_key('{name}')}`."
        ),
        "servers": _servers_named("rabbitmq", "redis"),
        "parameters": {
            "name": {"description": "`name` of a table `[feed.NAME]`.", "examples": ["invigilator.events"]}
        },
        "messages": _messages_named(EVENT_TYPES),
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, **AMQP_BINDING}},
    }


def _webhook() -> Node:
    return {
        "address": None,
        "title": "Events out, over HTTP",
        "description": (
            "A POST to the `url` of a table `[webhook.NAME]`, by the rules of Standard Webhooks 1.0. Answer "
            "2xx when you have the event, and 410 to get no more. After any other answer it comes again. It "
            "may come twice, and not in order: compare `id` and `sequence`."
        ),
        "servers": _servers_named("listener"),
        "messages": {
            name: {"$ref": f"#/components/messages/{of_webhooks(name)}"}
            for name in (*EVENT_TYPES, WebhookTest.event_type)
        },
    }


def _openedx() -> Node:
    return {
        "address": "{topic}",
        "title": "Events out, to the event bus of Open edX",
        "description": (
            "A stream in the wire format of edx-event-bus-redis. These events carry names and addresses, "
            "because that bus wants them."
        ),
        "servers": _servers_named("openedx"),
        "parameters": {
            "topic": {
                "description": "`topic` of a table `[openedx.NAME]`: the whole name of the stream.",
                "examples": ["learning-exam-attempt-lifecycle"],
            }
        },
        "messages": _messages_named(OPEN_EDX_TYPES),
    }


def _server(protocol: str, host: str, description: str) -> Node:
    return {
        "host": "{host}",
        "protocol": protocol,
        "description": description,
        "variables": {"host": {"default": host}},
    }


def _operation(action: str, channel: str, summary: str, bindings: Node | None = None) -> Node:
    operation = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}
    return operation if bindings is None else operation | {"bindings": bindings}


def _servers_named(*names: str) -> list[Node]:
    return [{"$ref": f"#/servers/{name}"} for name in names]


def _messages_named(names: Iterable[str]) -> Node:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}
