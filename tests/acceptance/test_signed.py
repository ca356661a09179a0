"""Signed commands through real processes: whoever reaches the broker cannot say `verified` any more."""

import hashlib
import hmac
import json
from base64 import b64encode
from collections import Counter

from tests.acceptance.client import SOURCE, event
from tests.acceptance.harness import Stack

KEY = "never-printed-" + "k" * 32
UPDATE = "exam.attempt.update-status.v1"
KEYS_FILE = f"""
["{SOURCE}"]
keys = ["a key to come, of thirty-two characters", "{KEY}"]
types = ["{UPDATE}", "exam.attempt.create.v1"]
to_status = ["started", "submitted"]

["/invigilator/cli"]
keys = ["cli's never-printed-{"c" * 32}"]
types = ["*"]
to_status = ["*"]
"""


def envelope(body: bytes, key: str) -> bytes:
    """What any language can push: no line of ours."""
    signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return json.dumps({"payload": b64encode(body).decode(), "signature": signature}).encode()


def update(to_status: str, command_id: str) -> bytes:
    return event(UPDATE, {"exam_id": "7", "user_id": "u", "to_status": to_status}, command_id)


def test_only_who_signs_is_heard(stack: Stack) -> None:
    # Given a system that insists on signatures, and a learner and an exam from our own command line, which signs
    keys = stack.folder / "keys.toml"
    keys.write_text(KEYS_FILE)
    stack.settings["COMMAND_KEYS_FILE"] = str(keys)
    exam = {"exam_id": "7", "course_id": "c", "content_id": "b", "exam_name": "Finals"}
    learner = {"user_id": "u", "username": "ada", "email": "ada@example.org"}
    lines = stack.folder / "commands.jsonl"
    lines.write_text(
        json.dumps({"type": "exam.upsert.v1", "data": exam})
        + "\n"
        + json.dumps({"type": "learner.upsert.v1", "data": learner})
        + "\n"
    )
    assert stack.cli("publish", str(lines)).stdout == "published: 2\n"
    process = stack.start("commands")
    stack.wait_until_handled(2)
    # When a front end signs what it may and what it may not, and somebody else forges
    create = event("exam.attempt.create.v1", {"exam_id": "7", "user_id": "u"}, "create")
    bodies = {
        "bad_signature": [update("verified", "x"), update("submitted", "forged")],
        "not_allowed": [update("verified", "too much")],
    }
    stack.client.publish_malformed(bodies["bad_signature"][0])
    stack.client.publish_malformed(envelope(bodies["bad_signature"][1], "guessed" * 8))
    stack.client.publish_malformed(envelope(bodies["not_allowed"][0], KEY))
    for good in (create, update("started", "start"), update("submitted", "forged")):
        stack.client.publish_malformed(envelope(good, KEY))
    stack.wait_until_handled(5)
    # Then only what was signed and allowed has happened, in its order
    assert stack.history("7", "u") == ["created", "started", "submitted"]
    rows = stack.rows("SELECT code, body FROM quarantine")
    expected = [(code, body) for code, several in bodies.items() for body in several]
    assert Counter((row.code, bytes(row.body)) for row in rows) == Counter(expected)
    # and one warning line for each says why, and no line tells a key
    stack.wait_until(lambda: process.output().count('"warning"') == len(expected), "one line each")
    assert "never-printed" not in process.output()
    # And a file with a mistake ends the start with one line
    keys.write_text(KEYS_FILE.replace("types", "type"))
    ran = stack.cli("consume", check=False)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert "type: is not allowed; a source has keys, types, to_status" in ran.stderr
