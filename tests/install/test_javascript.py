"""The programs of docs/javascript.md, as they stand there."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import kombu
import pytest

from events.envelope import parse
from events.sharding import queue_name, shard_of
from tests.install.environments import PATIENCE_S, ROOT
from tests.install.node import install, run

PROGRAM = re.compile(r"^```javascript\n// (?P<name>\w+\.mjs)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
AMQPLIB = "amqplib@2.3.1"
SHARDS = 2


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs of the document."""
    for program in PROGRAM.finditer((ROOT / "docs" / "javascript.md").read_text()):
        (tmp_path / program["name"]).write_text(program["code"])
    return tmp_path


class Answers(BaseHTTPRequestHandler):
    """Answers as the contract says, and keeps the call."""

    sent: ClassVar[dict[str, object]] = {}
    calls: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append((self.path, dict(self.headers), body))
        answer = json.dumps({"commands": [{"source": "/lms/acme", "id": "5f0c", **self.sent}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Answers.calls.clear()
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_over_http_it_says_what_became_of_the_command(programs: Path, server: str) -> None:
    Answers.sent = {"outcome": "applied", "attempt": {"status": "submitted"}}
    ended = run("node", "submit.mjs", folder=programs, INVIGILATOR=server, TOKEN="secret")
    assert (ended.returncode, ended.stdout) == (0, "applied submitted\n"), ended.stderr
    [(path, headers, body)] = Answers.calls
    lower = {name.lower(): value for name, value in headers.items()}
    assert path == "/v1/commands"
    assert (lower["authorization"], lower["prefer"]) == ("Bearer secret", "wait=5")
    assert (
        parse(json.dumps({"specversion": "1.0", "source": "/lms", **json.loads(body)}).encode()).id == "5f0c"
    )


def test_over_http_it_fails_when_the_command_is_rejected(programs: Path, server: str) -> None:
    Answers.sent = {"outcome": "rejected", "code": "illegal_transition", "detail": "verified cannot become …"}
    ended = run("node", "submit.mjs", folder=programs, INVIGILATOR=server, TOKEN="secret")
    assert ended.returncode == 1
    assert "illegal_transition: verified cannot become" in ended.stderr


def test_over_rabbitmq_the_command_arrives_on_its_shard(programs: Path, rabbitmq_url: str) -> None:
    install(AMQPLIB, programs)
    with kombu.Connection(rabbitmq_url) as connection:
        queue = connection.SimpleQueue(queue_name(shard_of("42", SHARDS)))
        queue.clear()
        ended = run("node", "publish.mjs", folder=programs, BROKER=rabbitmq_url, SHARDS=str(SHARDS))
        assert ended.returncode == 0, ended.stderr
        message = queue.get(timeout=PATIENCE_S)
        message.ack()
        queue.close()
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    assert parse(body, message.content_type).id == "5f0c"
    # And without that queue it fails
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_delete(queue_name(shard_of("42", SHARDS)))
    ended = run("node", "publish.mjs", folder=programs, BROKER=rabbitmq_url, SHARDS=str(SHARDS))
    assert ended.returncode == 1
    assert "there is no queue for shard" in ended.stderr
