"""The mail sink: an SMTP server that keeps accepted mails in memory and delivers none."""

import asyncio
import logging
import random
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import default
from weakref import WeakSet

from aiosmtpd.smtp import SMTP, Envelope, Session

from invigilator.demo.reference.background import BackgroundServer
from invigilator.demo.reference.loop import LoopThread

TAKEN = "250 OK"
REFUSED = "451 4.3.0 try again later, as asked"


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """One accepted mail. `raw` holds its headers and bodies."""

    message_id: str
    recipient: str
    subject: str
    raw: bytes


class MailSink(BackgroundServer):
    """A mail server in this process. It listens on 127.0.0.1: on a free port at first, and on the same one again.

    It runs between `start` and `stop`, or in a `with` block.

    Parameters:
        reject_fraction: the fraction of mails (0 to 1) that are answered 451 and not kept. The attribute may be
            changed while the sink runs.
        seed: the seed of the generator that chooses the mails to reject.
    """

    def __init__(self, *, reject_fraction: float = 0.0, seed: int = 0) -> None:
        self.reject_fraction = reject_fraction
        self.rejected = 0
        self._port = 0
        self._mails: list[ReceivedMail] = []
        self._chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._conversations: WeakSet[SMTP] = WeakSet()
        self._loop: LoopThread | None = None
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """The URL for `INVIGILATOR_SMTP_URL`."""
        assert self._port, "not started"
        return f"smtp://127.0.0.1:{self._port}"

    @property
    def mails(self) -> list[ReceivedMail]:
        """The accepted mails, in order."""
        return list(self._mails)

    @property
    def duplicates(self) -> int:
        """The number of mails whose Message-ID an earlier mail had already."""
        mails = self.mails
        return len(mails) - len({mail.message_id for mail in mails})

    def start(self) -> None:
        """Listen and serve in a thread of its own."""
        # aiosmtpd logs each recipient at INFO, which is personal data.
        logging.getLogger("mail.log").setLevel(logging.WARNING)
        self._loop = LoopThread("mail-sink")
        self._server = self._loop.run(self._listen())
        self._port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        """Close every connection and wait for the thread. `mails` can still be read."""
        if self._loop is None:
            return
        self._loop.run(self._hang_up())
        self._loop.close()
        self._loop = self._server = None

    def conversation(self, loop: asyncio.AbstractEventLoop) -> SMTP:
        """Return the protocol of a new connection. Tests override this for servers with other extensions."""
        return SMTP(self, hostname="localhost", enable_SMTPUTF8=True, loop=loop)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Accept or reject one mail. aiosmtpd calls this once it has received the whole mail."""
        del server, session
        if self._chance.random() < self.reject_fraction:
            self.rejected += 1
            return REFUSED
        raw = envelope.original_content or b""
        message = message_from_bytes(raw, policy=default)
        subject, message_id = str(message["Subject"]), str(message["Message-ID"])
        self._mails.append(ReceivedMail(message_id, envelope.rcpt_tos[0], subject, raw))
        return TAKEN

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()

        def connected() -> SMTP:
            conversation = self.conversation(loop)
            self._conversations.add(conversation)
            return conversation

        return await loop.create_server(connected, "127.0.0.1", self._port)

    async def _hang_up(self) -> None:
        assert self._server is not None, "not started"
        self._server.close()
        for conversation in list(self._conversations):
            if isinstance(conversation.transport, asyncio.WriteTransport):
                conversation.transport.abort()
