"""Run by an environment's own Python: does everything that the client is for.

Its argument is JSON: the URLs of brokers, Django's database, the packages that are beside the client, and those
that are not there. It prints the versions that it found, in JSON, too.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import pkgutil
import sys
import time
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

import django
import invigilator_client
from django.conf import settings
from django.core.management import call_command
from django.db import transaction

UPDATE = "exam.attempt.update-status.v1"
SUBMITTED = {"exam_id": "7", "to_status": "submitted"}
ATTEMPT = {
    "id": "018f4e5a-0000-7000-8000-000000000000",
    "exam_id": "7",
    "user_id": "42",
    "attempt_code": "a1",
    "status": "submitted",
    "taking_as_proctored": True,
    "is_sample_attempt": False,
    "external_id": None,
    "started_at": None,
    "completed_at": "2026-03-01T09:00:00Z",
    "version": 2,
    "removed_at": None,
}


def import_all(package: ModuleType, missing: list[str]) -> None:
    """Import every module of a package."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name not in missing:
                raise


def publish_in_three_ways(broker_url: str) -> None:
    """Publish one command with each publisher, and one from the outbox."""
    with invigilator_client.Publisher(broker_url, source="/lms/acme", shards=1) as lms:
        lms.update_status(user_id="42", **SUBMITTED, from_statuses=["started"])
    asyncio.run(publish_in_a_loop(broker_url))
    settings.INVIGILATOR = {"BROKER_URL": broker_url, "SOURCE": "/lms/acme", "SHARDS": 1}
    with transaction.atomic():
        invigilator_client.django.publish(UPDATE, user_id="rolled back", **SUBMITTED)
        transaction.set_rollback(True)
    with transaction.atomic():
        invigilator_client.django.publish(UPDATE, user_id="44", **SUBMITTED)
    call_command("publish_commands", once=True, stdout=sys.stderr)


async def publish_in_a_loop(broker_url: str) -> None:
    """Publish one command with the publisher for asyncio."""
    async with invigilator_client.AsyncPublisher(broker_url, source="/lms/acme", shards=1) as lms:
        await lms.update_status(user_id="43", **SUBMITTED)


def verify_a_webhook() -> None:
    """Sign an event as Standard Webhooks says, and verify it; refuse another."""
    secret, sent_at, body = b"0123456789abcdef0123456789abcdef", str(int(time.time())), b'{"id": "5f0c"}'
    signed = hmac.digest(secret, b"5f0c." + sent_at.encode() + b"." + body, hashlib.sha256)
    headers = {
        "webhook-id": "5f0c",
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }
    secrets = [f"whsec_{base64.b64encode(secret).decode()}"]
    assert invigilator_client.verify_webhook(body, headers, secrets) == {"id": "5f0c"}
    try:
        invigilator_client.verify_webhook(body + b" ", headers, secrets)
    except invigilator_client.InvalidWebhookError:
        return
    raise AssertionError("a changed body was accepted")


def ask_over_http() -> None:
    """Send a command to a stand-in for the API, and read its answer."""
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        sent = {"source": "/lms/acme", "id": json.loads(request.content)["id"], "attempt": ATTEMPT}
        return httpx.Response(200, json={"commands": [{**sent, "outcome": "applied"}]})

    transport = httpx.MockTransport(answer)
    with invigilator_client.Client("https://invigilator.example", "secret", transport=transport) as client:
        attempt = client.update_status(user_id="42", **SUBMITTED, wait=5)
        assert attempt is not None
        assert attempt.status == "submitted"


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    if told["database"]["ENGINE"].endswith(".mysql"):
        import_module("pymysql").install_as_MySQLdb()
    settings.configure(
        INSTALLED_APPS=["invigilator_client.django"],
        USE_TZ=True,
        DATABASES={"default": told["database"]},
    )
    django.setup()
    import_all(invigilator_client, told["missing"])
    assert not any(name.startswith("events.") for name in sys.modules), "the worker's package is not here"
    for name in told["beside"]:
        import_module(name)
    call_command("migrate", verbosity=0)
    for broker_url in told["brokers"]:
        publish_in_three_ways(broker_url)
    verify_a_webhook()
    if "httpx" not in told["missing"]:
        ask_over_http()
    found = {name: version(name) for name in ("kombu", "redis", "pydantic", "Django")}
    found["python"] = ".".join(map(str, sys.version_info[:2]))
    print(json.dumps(found))  # noqa: T201 - the test reads it
