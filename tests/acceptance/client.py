"""A foreign LMS: publishes raw JSON, without a line of our publisher."""

import json
import zlib
from collections.abc import Sequence
from datetime import datetime
from itertools import count
from typing import Any, Protocol

from kombu import Connection
from redis import Redis

from events.broker_url import read_broker_url
from worker.commands.sources.redis import make_client

SOURCE = "/acceptance"
QUORUM = {"x-queue-type": "quorum", "x-single-active-consumer": True}

Key = tuple[str, str]


class Post(Protocol):
    """The way to a queue of commands."""

    def send(self, queue: str, bodies: Sequence[bytes]) -> None:
        """Publish bodies, the first one first."""
        ...

    def waiting(self, queue: str) -> int:
        """How many messages nobody has acknowledged."""
        ...

    def close(self) -> None: ...


class RedisPost:
    """LPUSH, as any language can."""

    def __init__(self, url: str) -> None:
        behind_sentinels = url.startswith("sentinel")
        self._redis = make_client(read_broker_url(url), 10) if behind_sentinels else Redis.from_url(url)

    def send(self, queue: str, bodies: Sequence[bytes]) -> None:
        if bodies:
            self._redis.lpush(queue, *bodies)

    def waiting(self, queue: str) -> int:
        length: Any = self._redis.llen(queue)
        return int(length)

    def close(self) -> None:
        self._redis.close()


class RabbitPost:
    """Plain AMQP: the default exchange, persistent, confirmed."""

    def __init__(self, url: str) -> None:
        assert url.startswith("amqp://")
        self._connection: Any = Connection(url, transport_options={"confirm_publish": True})
        self._channel: Any = self._connection.channel()

    def send(self, queue: str, bodies: Sequence[bytes]) -> None:
        self._declare(queue)
        for body in bodies:
            message = self._channel.prepare_message(
                body,
                content_type="application/cloudevents+json",
                content_encoding="utf-8",
                properties={"delivery_mode": 2},
            )
            self._channel.basic_publish(message, exchange="", routing_key=queue, mandatory=True)

    def waiting(self, queue: str) -> int:
        return int(self._declare(queue).message_count)

    def _declare(self, queue: str) -> Any:
        return self._channel.queue_declare(queue, durable=True, auto_delete=False, arguments=QUORUM)

    def close(self) -> None:
        self._connection.release()


class Client:
    """Publishes, and remembers what it has published: `bodies` by (source, id), `malformed` in order."""

    def __init__(self, broker_url: str, shards: int = 1) -> None:
        self.shards = shards
        self.bodies: dict[Key, bytes] = {}
        self.malformed: list[bytes] = []
        self._numbers = count(1)
        self._post = _post(broker_url)

    def move_to(self, broker_url: str) -> None:
        """Publish to another broker from now on."""
        self._post.close()
        self._post = _post(broker_url)

    def close(self) -> None:
        self._post.close()

    def waiting(self) -> int:
        """How many messages nobody has acknowledged, in all shards."""
        return sum(self._post.waiting(_queue(shard)) for shard in range(self.shards))

    def command(self, kind: str, data: dict[str, Any], command_id: str | None = None) -> str:
        """Publish one command; returns its id."""
        body = event(kind, data, command_id or f"c{next(self._numbers)}")
        self.publish([body])
        return str(json.loads(body)["id"])

    def publish(self, bodies: Sequence[bytes]) -> None:
        """Publish commands in this order."""
        queued: dict[int, list[bytes]] = {shard: [] for shard in range(self.shards)}
        for body in bodies:
            command = json.loads(body)
            self.bodies.setdefault((command["source"], command["id"]), body)
            for shard in self._shards_of(command["data"]):
                queued[shard].append(body)
        for shard, waiting in queued.items():
            self._post.send(_queue(shard), waiting)

    def publish_malformed(self, body: bytes, stored: bytes | None = None) -> None:
        """Publish what is no command; `stored` is what the quarantine should hold when that differs."""
        self.malformed.append(body if stored is None else stored)
        self._post.send(_queue(0), [body])

    def course(self, course_id: str, **fields: Any) -> str:
        return self.command("course.upsert.v1", {"course_id": course_id, **fields})

    def exam(self, exam_id: str, course_id: str, **fields: Any) -> str:
        exam = {"content_id": f"content-{exam_id}", "exam_name": f"Exam {exam_id}", **fields}
        return self.command("exam.upsert.v1", {"exam_id": exam_id, "course_id": course_id, **exam})

    def learner(self, user_id: str, **fields: Any) -> str:
        learner = {"username": f"name-{user_id}", "email": f"{user_id}@example.org", **fields}
        return self.command("learner.upsert.v1", {"user_id": user_id, **learner})

    def create(self, exam_id: str, user_id: str, **fields: Any) -> str:
        data = {"exam_id": exam_id, "user_id": user_id, **fields}
        return self.command("exam.attempt.create.v1", data)

    def update(self, exam_id: str, user_id: str, to_status: str | None, **fields: Any) -> str:
        data = {"exam_id": exam_id, "user_id": user_id, "to_status": to_status, **fields}
        return self.command("exam.attempt.update-status.v1", data)

    def remove(self, exam_id: str, user_id: str, **fields: Any) -> str:
        data = {"exam_id": exam_id, "user_id": user_id, **fields}
        return self.command("exam.attempt.remove.v1", data)

    def _shards_of(self, data: dict[str, Any]) -> Sequence[int]:
        if "user_id" in data:
            return [zlib.crc32(str(data["user_id"]).encode()) % self.shards]
        return range(self.shards)


def _post(broker_url: str) -> Post:
    return RabbitPost(broker_url) if broker_url.startswith("amqp") else RedisPost(broker_url)


def event(kind: str, data: dict[str, Any], command_id: str, time: datetime | None = None) -> bytes:
    """A command as bytes. `time` says when it happened."""
    command = {"specversion": "1.0", "id": command_id, "source": SOURCE, "type": kind, "data": data}
    if time is not None:
        command["time"] = time.isoformat()
    return json.dumps(command).encode()


def _queue(shard: int) -> str:
    return f"invigilator.commands.{shard}"
