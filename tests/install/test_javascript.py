"""The programs of docs/javascript.md and docs/webhooks.md that need a package.

`tests/acceptance/test_client.py` runs the other one.
"""

import re
import subprocess
from pathlib import Path

import kombu
import pytest

from events.envelope import parse
from events.sharding import queue_name, shard_of
from tests.engines import unavailable
from tests.fakes.receiver import OTHER_SECRET, SECRET
from tests.install.environments import ROOT
from tests.programs import PATIENCE_S, run_program
from worker.errors import Transient
from worker.lms.ports import Deadline
from worker.lms.webhooks import HttpWebhooks, trial_delivery
from worker.subscribers import Webhook

PROGRAM = re.compile(r"^```javascript\n// (?P<name>\w+\.mjs)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
AMQPLIB = "amqplib@2.3.1"
STANDARDWEBHOOKS = "standardwebhooks@1.1.1"
SHARDS = 2


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with the programs of the documents."""
    for document in ("javascript.md", "webhooks.md"):
        for program in PROGRAM.finditer((ROOT / "docs" / document).read_text()):
            (tmp_path / program["name"]).write_text(program["code"])
    return tmp_path


def install(package: str, folder: Path) -> None:
    """Install a package of npm."""
    command = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", package)
    installed = run_program(*command, folder=folder)
    if installed.returncode != 0:
        unavailable(f"npm install failed: {installed.stderr[-500:]}")


def test_over_rabbitmq_the_command_arrives_on_its_shard(programs: Path, rabbitmq_url: str) -> None:
    install(AMQPLIB, programs)
    with kombu.Connection(rabbitmq_url) as connection:
        queue = connection.SimpleQueue(queue_name(shard_of("42", SHARDS)))
        queue.clear()
        ended = run_program("node", "publish.mjs", folder=programs, BROKER=rabbitmq_url, SHARDS=str(SHARDS))
        assert ended.returncode == 0, ended.stderr
        message = queue.get(timeout=PATIENCE_S)
        message.ack()
        queue.close()
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    assert parse(body, message.content_type).id == "submission-9371"
    # And without that queue it fails
    with kombu.Connection(rabbitmq_url) as connection:
        connection.channel().queue_delete(queue_name(shard_of("42", SHARDS)))
    ended = run_program("node", "publish.mjs", folder=programs, BROKER=rabbitmq_url, SHARDS=str(SHARDS))
    assert ended.returncode == 1
    assert "there is no queue for shard" in ended.stderr


def test_a_webhook_is_received_once_and_only_if_it_is_signed(programs: Path) -> None:
    install(STANDARDWEBHOOKS, programs)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(programs),
        "PORT": "0",
        "SECRET": SECRET,
    }
    receiver = subprocess.Popen(
        ["node", "receive.mjs"], cwd=programs, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert receiver.stdout is not None
        port = receiver.stdout.readline().split()[-1]
        table = {"url": f"http://127.0.0.1:{port}/hooks", "secrets": [OTHER_SECRET, SECRET]}
        signed = HttpWebhooks({"webhook.acme": Webhook.model_validate(table)})
        forged = HttpWebhooks({"webhook.acme": Webhook.model_validate({**table, "secrets": [OTHER_SECRET]})})
        delivery = trial_delivery("acme", "/invigilator/main")
        with pytest.raises(Transient, match="answered 400"):
            forged.send(delivery, Deadline.after(PATIENCE_S))
        for _ in range(2):
            signed.send(delivery, Deadline.after(PATIENCE_S))
        signed.close()
        forged.close()
    finally:
        receiver.terminate()
    assert receiver.communicate(timeout=PATIENCE_S)[0].split() == ["exam.webhook.test.v1"]
