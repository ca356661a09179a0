"""A mail server that takes so many connections at once, and no more."""

import asyncio
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from invigilator.demo.reference import MailSink


class CrowdedSink(MailSink):
    """Says `code` to one connection more than `limit`; each mail takes `latency_s`."""

    def __init__(self, limit: int, latency_s: float, code: int = 421) -> None:
        super().__init__()
        self.limit = limit
        self.latency_s = latency_s
        self.code = code
        self.open = 0
        self.refused = 0

    def conversation(self, loop: asyncio.AbstractEventLoop) -> SMTP:
        return _Conversation(self, loop)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self.latency_s)
        return await super().handle_DATA(server, session, envelope)


class _Conversation(SMTP):
    def __init__(self, sink: CrowdedSink, loop: asyncio.AbstractEventLoop) -> None:
        self.sink = sink
        super().__init__(sink, hostname="localhost", loop=loop)

    def connection_made(self, transport: Any) -> None:
        self.sink.open += 1
        if self.sink.open > self.sink.limit:
            self.sink.refused += 1
            transport.write(f"{self.sink.code} 4.7.0 too many connections\r\n".encode())
            transport.close()
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.open -= 1
        super().connection_lost(error)
