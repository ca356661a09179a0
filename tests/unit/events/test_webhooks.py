"""Webhooks: what the package of Standard Webhooks signs is accepted, and everything else is refused."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from events.errors import InvalidWebhookError
from events.webhooks import TOLERANCE_S, read_secret, sign_webhook, verify_webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = f"whsec_{b64encode(b'another secret, long enough').decode()}"
EVENT = {"specversion": "1.0", "id": "e1", "type": "exam.attempt.created.v1", "data": {"user_id": "4ö"}}
BODY = json.dumps(EVENT, ensure_ascii=False).encode()


def signed(body: bytes = BODY, *secrets: str, away_s: float = 0) -> dict[str, str]:
    time = datetime.now(UTC) + timedelta(seconds=away_s)
    signatures = (Webhook(secret).sign("e1", time, body.decode()) for secret in secrets or (SECRET,))
    return {
        "Webhook-Id": "e1",
        "Webhook-Timestamp": str(int(time.timestamp())),
        "Webhook-Signature": " ".join(signatures),
    }


def test_what_the_package_signs_is_accepted() -> None:
    assert verify_webhook(BODY, signed(), [SECRET]) == EVENT


@pytest.mark.parametrize("secrets", [[SECRET, OTHER], [OTHER, SECRET]])
def test_any_live_secret_fits(secrets: list[str]) -> None:
    assert verify_webhook(BODY, signed(), secrets) == EVENT


def test_a_sender_that_changes_its_secret_signs_with_both() -> None:
    assert verify_webhook(BODY, signed(BODY, OTHER, SECRET), [SECRET]) == EVENT


def test_what_we_sign_is_what_the_package_signs() -> None:
    ours = sign_webhook(BODY, "e1", int(datetime.now(UTC).timestamp()), [OTHER, SECRET])
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(BODY, ours) == EVENT
        assert verify_webhook(BODY, ours, [secret]) == EVENT
    time = datetime.fromtimestamp(int(ours["webhook-timestamp"]), UTC)
    theirs = [Webhook(secret).sign("e1", time, BODY.decode()) for secret in (OTHER, SECRET)]
    assert ours["webhook-signature"] == " ".join(theirs)


@pytest.mark.parametrize("size", [24, 64])
def test_a_secret_that_is_fit_to_sign_with(size: int) -> None:
    assert read_secret(f"whsec_{b64encode(bytes(size)).decode()}") == bytes(size)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", b64encode(bytes(24)).decode(), "whsec_ä", "whsec_AA=", None, SECRET.encode(), 7]
)
def test_a_secret_that_is_not_fit_to_sign_with(secret: str) -> None:
    with pytest.raises(ValueError, match=r"a secret must be whsec_ and base64"):
        read_secret(secret)


@pytest.mark.parametrize("size", [23, 65])
def test_a_secret_is_neither_short_nor_long(size: int) -> None:
    with pytest.raises(ValueError, match=r"a secret must be whsec_ and base64 of 24 to 64 bytes"):
        read_secret(f"whsec_{b64encode(bytes(size)).decode()}")


def test_another_secret_does_not_fit() -> None:
    with pytest.raises(InvalidWebhookError, match="no secret fits"):
        verify_webhook(BODY, signed(), [OTHER])


@pytest.mark.parametrize("header", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_every_header_is_needed(header: str) -> None:
    headers = signed()
    del headers[header]
    with pytest.raises(InvalidWebhookError, match=f"{header.lower()} is missing"):
        verify_webhook(BODY, headers, [SECRET])


@pytest.mark.parametrize("header", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
@pytest.mark.parametrize("value", [b"e1", ["e1"], None])
def test_every_header_is_text(header: str, value: Any) -> None:
    with pytest.raises(InvalidWebhookError, match=f"{header.lower()} is no text"):
        verify_webhook(BODY, signed() | {header: value}, [SECRET])


@pytest.mark.parametrize(
    "changed",
    [
        {"Webhook-Id": "e2"},
        {"Webhook-Id": "\ud800"},
        {"Webhook-Signature": "v1,ö"},
        {"Webhook-Signature": ""},
    ],
)
def test_what_is_signed_cannot_be_changed(changed: dict[str, str]) -> None:
    with pytest.raises(InvalidWebhookError, match="no secret fits"):
        verify_webhook(BODY, signed() | changed, [SECRET])
    with pytest.raises(InvalidWebhookError, match="no secret fits"):
        verify_webhook(BODY + b" ", signed(), [SECRET])


@pytest.mark.parametrize("away_s", [-TOLERANCE_S + 60, TOLERANCE_S - 60])
def test_clocks_may_differ_a_little(away_s: float) -> None:
    assert verify_webhook(BODY, signed(away_s=away_s), [SECRET]) == EVENT


@pytest.mark.parametrize("away_s", [-TOLERANCE_S - 60, TOLERANCE_S + 60])
def test_an_old_message_is_a_replayed_one(away_s: float) -> None:
    with pytest.raises(InvalidWebhookError, match="300 s away; check this server's clock"):
        verify_webhook(BODY, signed(away_s=away_s), [SECRET])


@pytest.mark.parametrize("timestamp", ["", "soon", "-1", "1.5", "٣", "9" * 5000])
def test_the_time_must_be_seconds(timestamp: str) -> None:
    with pytest.raises(InvalidWebhookError, match="is no number of seconds"):
        verify_webhook(BODY, signed() | {"Webhook-Timestamp": timestamp}, [SECRET])


@pytest.mark.parametrize(("body", "problem"), [(b"{", "not JSON"), (b"[]", "no event")])
def test_the_body_must_be_an_event(body: bytes, problem: str) -> None:
    with pytest.raises(InvalidWebhookError, match=problem):
        verify_webhook(body, signed(body), [SECRET])


def test_a_body_that_is_nested_too_deeply_is_no_event() -> None:
    body = b'{"data":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with pytest.raises(InvalidWebhookError, match="nested too deeply"):
        verify_webhook(body, signed(body), [SECRET])


@pytest.mark.parametrize("body", [BODY.decode(), None, EVENT])
def test_the_body_must_be_bytes(body: Any) -> None:
    with pytest.raises(TypeError, match="body must be the request's bytes"):
        verify_webhook(body, signed(), [SECRET])


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_AA==", "whsec_?", "whsec_ö", SECRET.removeprefix("whsec_")]
)
def test_secrets_must_be_secrets(secret: str) -> None:
    with pytest.raises(ValueError, match=r"^a secret must be whsec_ and base64 of 24 to 64 bytes$"):
        verify_webhook(BODY, signed(), [SECRET, secret])
    with pytest.raises(ValueError, match=r"^a secret must be whsec_ and base64 of 24 to 64 bytes$"):
        sign_webhook(BODY, "e1", 0, [SECRET, secret])


def test_there_must_be_a_secret() -> None:
    with pytest.raises(ValueError, match="give at least one secret"):
        verify_webhook(BODY, signed(), [])
