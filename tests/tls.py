"""Servers that speak TLS, with certificates that the test makes."""

import asyncio
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest.mock import patch

import trustme
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from invigilator.demo.reference.loop import LoopThread
from invigilator.local import postgres
from invigilator.local.server import free_port
from tests import engines
from tests.rabbit import running_rabbitmq

HOST = "localhost"
"""The only name that the certificates are good for: by its address, each server is the wrong host."""

PATIENCE_S = 60


class Authority:
    """A certificate authority and what it has signed, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        ca = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.certificate = str(folder / "server.pem")
        self.key = str(folder / "server.key")
        ca.cert_pem.write_to_path(self.ca)
        issued = ca.issue_cert(HOST)
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        issued.private_key_pem.write_to_path(self.key)

    def server_context(self, *, asks_clients: bool = False) -> ssl.SSLContext:
        """What a server needs; `asks_clients` for their certificates, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if asks_clients:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class Proxy:
    """Forwards a port of its own to another one of 127.0.0.1. TLS ends here, when it is given any."""

    def __init__(self, upstream: int, tls: ssl.SSLContext | None = None) -> None:
        self.heard = bytearray()
        """What the clients have said, decrypted."""
        self.port = free_port()
        self._upstream = upstream
        self._tls = tls
        self._loop = LoopThread("proxy")
        self._thawed = asyncio.Event()
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Self:
        self._thawed.set()
        self._server = self._loop.run(
            asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._stop())
        self._loop.close()

    def freeze(self) -> None:
        """From now on, say nothing and hear nothing, and keep every connection."""
        self._loop.run(self._freeze())

    async def _freeze(self) -> None:
        self._thawed.clear()

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, downstream = await asyncio.open_connection("127.0.0.1", self._upstream)
            try:
                await asyncio.gather(
                    self._forward(reader, downstream, self.heard),
                    self._forward(upstream, writer, bytearray()),
                )
            finally:
                downstream.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray
    ) -> None:
        while said := await reader.read(65_536):
            await self._thawed.wait()
            record += said
            writer.write(said)
            await writer.drain()
        raise ConnectionResetError  # one side has ended: end the other


@contextmanager
def running_tls_postgres(authority: Authority) -> Iterator[str]:
    """The URL, without TLS, of a throw-away PostgreSQL that speaks TLS, too.

    It is the system's: the wheel's is built without. Skips on a laptop that has none, fails in CI.
    """
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not binaries:
        engines.unavailable("no PostgreSQL with TLS is installed: apt-get install postgresql")
    older = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")  # before 17 it had no builtin locales
    with ExitStack() as stack:
        # Only this server is the system's. Others may be started while it runs.
        with (
            patch.object(postgres, "binary", lambda program: binaries[-1] / program),
            patch.object(postgres, "INITDB", older),
        ):
            server = stack.enter_context(engines.running_postgres())
        _encrypt(server.url, authority)
        yield server.url


def _encrypt(url: str, authority: Authority) -> None:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        data = Path(connection.scalar(text("SHOW data_directory")) or "")
        for name, file in {"ssl_cert_file": authority.certificate, "ssl_key_file": authority.key}.items():
            copy = data / f"{name}.pem"
            copy.touch(mode=0o600)
            copy.write_bytes(Path(file).read_bytes())
            owner = (data / "PG_VERSION").stat()
            os.chown(copy, owner.st_uid, owner.st_gid)
            connection.execute(text(f"ALTER SYSTEM SET {name} = '{copy}'"))
        connection.execute(text("ALTER SYSTEM SET ssl = on"))
        connection.execute(text("SELECT pg_reload_conf()"))
    deadline = time.monotonic() + PATIENCE_S
    while not _speaks_tls(url):
        assert time.monotonic() < deadline, "PostgreSQL does not take the certificate"
        time.sleep(0.05)


def _speaks_tls(url: str) -> bool:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return bool(connection.scalar(text("SHOW ssl")) == "on")


def verified(postgres_url: str, authority: Authority, host: str = HOST) -> str:
    """The URL as an operator would write it: full verification, with the authority's file."""
    url = make_url(postgres_url).set(drivername="postgresql", host=host)
    options = {"sslmode": "verify-full", "sslrootcert": authority.ca}
    return url.update_query_dict(options).render_as_string(hide_password=False)


@contextmanager
def running_tls_rabbitmq(authority: Authority) -> Iterator[tuple[str, int]]:
    """A throw-away RabbitMQ: its URL without TLS, and the port where it speaks TLS."""
    port = free_port()
    options = {"cacertfile": authority.ca, "certfile": authority.certificate, "keyfile": authority.key}
    lines = [f"listeners.ssl.1 = 127.0.0.1:{port}", "ssl_options.verify = verify_none"]
    lines += [f"ssl_options.{name} = {file}" for name, file in options.items()]
    with running_rabbitmq("\n".join(lines)) as url:
        yield url, port
