"""Closes connections whose clients take for ever, which uvicorn by itself waits for."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_S = 10.0
"""Seconds in which the headers of a request must arrive."""
ANSWER_S = 60.0
"""Seconds in which a client must begin to read again, once its connection is full."""


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 with time-outs for headers and answers. `bodies` has that of a body."""

    headers_s = HEADERS_S
    answer_s = ANSWER_S
    _headers_due: asyncio.TimerHandle | None = None
    _answer_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._headers_due, self._answer_due):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_due = self.loop.call_later(self.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_due is not None:
            self._answer_due.cancel()

    def _expect_headers(self) -> None:
        is_missing = self.conn.their_state is h11.IDLE
        if is_missing and self._headers_due is None:
            self._headers_due = self.loop.call_later(self.headers_s, self.transport.abort)
        elif not is_missing and self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None
