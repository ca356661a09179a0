"""How the processes' objects are put together."""

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from db.prepared import PREPARES
from worker.effects_wiring import effects_engine, runner
from worker.errors import ConfigurationError
from worker.settings import Settings

REFUSAL = b"SFATAL\0C08P01\0Munsupported startup parameter in options: plan_cache_mode\0\0"


@pytest.fixture
def pooler() -> Iterator[str]:
    """The URL of what refuses session settings, as PgBouncer does."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"E" + struct.pack("!i", 4 + len(REFUSAL)) + REFUSAL)

        thread = threading.Thread(target=refuse)
        thread.start()
        yield f"postgresql://x@127.0.0.1:{server.getsockname()[1]}/x?sslmode=disable&gssencmode=disable"
        thread.join()


def test_a_pooler_that_the_settings_do_not_tell_of_is_named(pooler: str) -> None:
    settings = Settings(database_url=SecretStr(pooler))
    with pytest.raises(ConfigurationError, match="set INVIGILATOR_DATABASE_POOLER=transaction"):
        runner(settings)


@pytest.mark.parametrize(("is_between", "prepares"), [("none", True), ("transaction", False)])
def test_effects_are_prepared_unless_a_pooler_shares_the_sessions(is_between: str, prepares: bool) -> None:
    url = SecretStr("postgresql://nobody@127.0.0.1:1/x")
    engine = effects_engine(Settings.model_validate({"database_url": url, "database_pooler": is_between}))
    assert engine.get_execution_options()[PREPARES] is prepares
