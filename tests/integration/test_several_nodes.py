"""Several nodes of RabbitMQ: everybody finds the one that answers."""

from urllib.parse import urlsplit

import pytest

from tests.waysin import celery_on, every_refusal, every_way_in


@pytest.mark.parametrize(
    "form",
    [
        "amqp://guest:guest@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3,127.0.0.1:{port}//",
        "amqp://127.0.0.1:1;amqp://127.0.0.1:2;amqp://127.0.0.1:3;amqp://127.0.0.1:{port}",
    ],
)
def test_the_last_of_four_is_found(form: str, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    every_way_in(form.format(port=urlsplit(rabbitmq_url).port), monkeypatch)


def test_none_of_them_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "amqp://me:s3cret@127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
    for line in every_refusal(url, monkeypatch):
        assert "\n" not in line
        assert "s3cret" not in line


def test_workers_tell_nobody_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's workers answer to everybody who asks over the broker, Flower for example."""
    url = "amqp://me:s3cret@127.0.0.1:1,127.0.0.1:2"
    with celery_on(url, monkeypatch) as app, app.connection_for_write() as connection:
        told = connection.info()
        assert told.pop("password") == "s3cret"  # Celery leaves it out
        assert "s3cret" not in repr(told)
