"""The program of docs/javascript.md that needs a package. `tests/acceptance/test_client.py` runs the other one."""

import re
from pathlib import Path

import kombu

from events.envelope import parse
from events.sharding import queue_name, shard_of
from tests.engines import unavailable
from tests.install.environments import ROOT
from tests.programs import PATIENCE_S, run_program

PROGRAM = re.compile(r"^```javascript\n// publish\.mjs\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
AMQPLIB = "amqplib@2.3.1"
SHARDS = 2


def test_over_rabbitmq_the_command_arrives_on_its_shard(tmp_path: Path, rabbitmq_url: str) -> None:
    [program] = PROGRAM.finditer((ROOT / "docs" / "javascript.md").read_text())
    (tmp_path / "publish.mjs").write_text(program["code"])
    install = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", AMQPLIB)
    installed = run_program(*install, folder=tmp_path)
    if installed.returncode != 0:
        unavailable(f"npm install failed: {installed.stderr[-500:]}")
    with kombu.Connection(rabbitmq_url) as connection:
        queue = connection.SimpleQueue(queue_name(shard_of("42", SHARDS)))
        queue.clear()
        ended = run_program("node", "publish.mjs", folder=tmp_path, BROKER=rabbitmq_url, SHARDS=str(SHARDS))
        assert ended.returncode == 0, ended.stderr
        message = queue.get(timeout=PATIENCE_S)
        message.ack()
        queue.close()
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    assert parse(body, message.content_type).id == "5f0c"
    # And without that queue it fails
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_delete(queue_name(shard_of("42", SHARDS)))
    ended = run_program("node", "publish.mjs", folder=tmp_path, BROKER=rabbitmq_url, SHARDS=str(SHARDS))
    assert ended.returncode == 1
    assert "there is no queue for shard" in ended.stderr
