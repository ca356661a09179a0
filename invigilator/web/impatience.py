"""The protocol of a connection: it closes one whose client takes for ever, and tells of errors as the API does."""

import asyncio
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from invigilator.web.problems import ProblemCode, ProblemError

HEADERS_S = 10.0
"""Seconds in which the headers of a request must arrive."""
BODY_S = 60.0
"""Seconds in which a body must arrive, also one that nobody reads. `bodies` gives up sooner, with a problem."""
ANSWER_S = 60.0
"""Seconds in which a client must begin to read again, once its connection is full."""


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 with time-outs for headers, bodies and answers.

    What is no HTTP is answered with a problem, as every other error is.
    """

    headers_s = HEADERS_S
    body_s = BODY_S
    answer_s = ANSWER_S
    _expected: object = None
    _rest_due: asyncio.TimerHandle | None = None
    _answer_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_the_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._rest_due, self._answer_due):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_the_rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_due = self.loop.call_later(self.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_due is not None:
            self._answer_due.cancel()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - it says no more
        detail = "is no HTTP/1.1 request; send the request line and the headers as RFC 9112 wants them"
        problem = ProblemError(HTTPStatus.BAD_REQUEST, ProblemCode.INVALID_REQUEST, detail).answer()
        headers = [*problem.raw_headers, (b"cache-control", b"no-store"), (b"connection", b"close")]
        for event in (
            h11.Response(status_code=problem.status_code, headers=headers),
            h11.Data(data=bytes(problem.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def _expect_the_rest(self) -> None:
        """Begin to count the time when headers or a body begin. What comes of them begins nothing anew."""
        limits_s = {h11.IDLE: self.headers_s, h11.SEND_BODY: self.body_s}
        expected = (self.conn.their_state, self.cycle)
        if expected == self._expected:
            return
        self._expected = expected
        if self._rest_due is not None:
            self._rest_due.cancel()
        if limit_s := limits_s.get(self.conn.their_state):
            self._rest_due = self.loop.call_later(limit_s, self.transport.abort)
