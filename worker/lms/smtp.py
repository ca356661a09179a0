"""The SMTP adapter: the standard library's client with a deadline over the whole conversation."""

import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, getaddresses
from functools import partial
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from worker import tracing
from worker.errors import ConfigurationError, Misconfigured, Permanent
from worker.lms.dialing import dial, left_s
from worker.lms.ports import Deadline, Mail
from worker.lms.smtp_failures import FROM_SETTING, MAIL_SERVER, URL_SETTING, service_error

QUIT_TIMEOUT_S = 1.0
"""Seconds that a server has to close the connection after QUIT."""

# An address as mail servers take it. Quoted local parts and address literals are not in use and are refused. So is
# every character that could end an SMTP command or name a second recipient.
_WORD = r"[^\s\x00-\x20\x7f\ud800-\udfff@<>()\[\]\\,;:\"]+"
_ADDRESS = re.compile(f"{_WORD}@({_WORD})")


class SmtpMailer:
    """Sends each mail over a connection of its own. Many threads may call it at the same time.

    With `smtps://` the connection is always encrypted, with `smtp://` when the server offers STARTTLS. The
    certificate must then name the host and be signed by an authority of the system's store, also for a server
    on this machine. For a self-signed certificate, set `SSL_CERT_FILE`. The password is sent unencrypted only
    to a server on this machine.
    """

    def __init__(self, url: str, email_from: str) -> None:
        """Check the settings. Nothing connects yet.

        Parameters:
            url: `smtp://[user:password@]host[:port]` or `smtps://…`, with user and password percent-encoded.
            email_from: an address, or `Name <address>`.

        Raises:
            ConfigurationError: a setting cannot work.
        """
        self._server = _parse_url(url)
        self._from = email_from
        self._sender, self._domain = _parse_from(email_from)
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._conversations = 0

    def send(self, mail: Mail, deadline: Deadline) -> None:
        """Send one mail.

        The mail counts as sent once the server has accepted it, even if the connection breaks afterwards.

        Parameters:
            mail: the mail.
            deadline: the end of the whole conversation.

        Raises:
            Misconfigured: the server refuses the login, the missing encryption, or the sender.
            Crowded: the server refuses one more connection while others of ours are open.
            Unavailable: the connection failed, the deadline passed, or the answer is not about this mail.
            Transient: the server answered 4xx to this recipient or mail.
            Refused: the server answered 5xx to this recipient or mail.
            Permanent: no server takes the address, or this server lacks an extension that it needs.
        """
        deadline.check(MAIL_SERVER)
        message = self._compose(mail)
        attributes: tracing.Attributes = {
            "server.address": self._server.host,
            "server.port": self._server.port,
        }
        client = tracing.span("send mail", tracing.Kind.CLIENT, mail.traceparent, attributes)
        with client, self._conversation():
            try:
                self._converse(mail.to_address, message, deadline)
            except (OSError, ValueError) as error:
                # smtplib's errors are OSErrors. A ValueError means a login challenge that is not base64.
                # `from None`: their text quotes the recipient.
                raise service_error(error, deadline, self._conversations - 1) from None

    @contextmanager
    def _conversation(self) -> Iterator[None]:
        with self._lock:
            self._conversations += 1
        try:
            yield
        finally:
            with self._lock:
                self._conversations -= 1

    def _converse(self, to_address: str, message: bytes, deadline: Deadline) -> None:
        with ExitStack() as stack:
            client = _Client(self._server, partial(self._dial, deadline, stack))
            stack.callback(client.close)
            self._secure(client)
            self._log_in(client)
            self._hand_over(client, to_address, message)
            client.quit_and_wait()

    def _compose(self, mail: Mail) -> bytes:
        if not _ADDRESS.fullmatch(mail.to_address):
            raise Permanent("the learner's e-mail address is none that a mail server takes")
        # Not every server takes 8-bit bodies. UTF-8 headers are used only when the address needs them.
        message = EmailMessage(SMTP.clone(cte_type="7bit", utf8=not mail.to_address.isascii()))
        try:
            message["From"] = self._from
            message["To"] = mail.to_address
            message["Subject"] = mail.subject
            message["Date"] = formatdate()
            message["Message-ID"] = f"<{mail.effect_id}@{self._domain}>"
            message["Auto-Submitted"] = "auto-generated"
            message.set_content(mail.text)
            message.add_alternative(mail.html, subtype="html")
            return message.as_bytes()
        except ValueError:
            raise Permanent("the mail holds characters that no mail can carry") from None

    def _dial(self, deadline: Deadline, stack: ExitStack) -> socket.socket:
        connection = _connect(self._server, deadline)
        stack.callback(connection.close)
        stack.enter_context(_cut_off(connection, deadline))
        if self._server.implicit_tls:
            return self._tls.wrap_socket(connection, server_hostname=self._server.host)
        return connection

    def _secure(self, client: "_Client") -> None:
        client.ehlo_or_helo_if_needed()
        if not self._server.implicit_tls and client.has_extn("starttls"):
            client.starttls(context=self._tls)
            client.ehlo_or_helo_if_needed()

    def _log_in(self, client: "_Client") -> None:
        if self._server.user is None or self._server.password is None:
            return
        if not client.is_private():
            raise Misconfigured(
                f"{MAIL_SERVER} offers no encryption, and the password is not sent in clear; use smtps://",
                setting=URL_SETTING,
            )
        client.login(self._server.user, self._server.password)

    def _hand_over(self, client: "_Client", to_address: str, message: bytes) -> None:
        options: tuple[str, ...] = ()
        if not to_address.isascii():
            if not client.has_extn("smtputf8"):
                raise Permanent(
                    f"{MAIL_SERVER} takes ASCII addresses only, and the learner's is none (SMTPUTF8)"
                )
            options = ("SMTPUTF8", "BODY=8BITMIME")
        client.sendmail(self._sender, [to_address], message, options)


class _Client(smtplib.SMTP):
    """smtplib's client over a socket that `dial` opens."""

    def __init__(self, server: "_Server", dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        super().__init__(server.host, server.port, local_hostname=_own_name())

    def _get_socket(self, *_: object) -> socket.socket:  # the hook that smtplib's own SMTP_SSL overrides
        return self._dial()

    def quit_and_wait(self) -> None:
        """Send QUIT and wait until the server closes the connection.

        The server counts the connection against its limit until then, so the next mail could be one too many.
        """
        with suppress(OSError):
            self.docmd("QUIT")
            assert self.sock is not None
            self.sock.settimeout(QUIT_TIMEOUT_S)
            self.sock.recv(1)

    def is_private(self) -> bool:
        """Return whether the connection is encrypted or stays on this machine."""
        if isinstance(self.sock, ssl.SSLSocket):
            return True
        return self.sock is not None and is_this_machine(self.sock.getpeername()[0])


@dataclass(frozen=True, slots=True)
class _Server:
    host: str
    port: int
    implicit_tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def is_this_machine(address: str) -> bool:
    """Return whether an IP address, with or without a `%scope`, is a loopback address."""
    return ip_address(address.partition("%")[0]).is_loopback


def _connect(server: _Server, deadline: Deadline) -> socket.socket:
    """Connect to the first address of the server that answers."""

    def connect(address: str, seconds: float) -> socket.socket:
        return socket.create_connection((address, server.port), seconds)

    connection = dial(server.host.encode("idna").decode(), server.port, deadline.ends_at, connect)
    try:
        connection.settimeout(left_s(deadline.ends_at))
    except TimeoutError:
        connection.close()
        raise
    return connection


@contextmanager
def _cut_off(connection: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Shut the connection down at the deadline.

    The socket's own time-out applies to each read, so a server that sends one byte a second never exceeds it.
    The timer keeps a duplicate of the socket, because TLS replaces the original one during the conversation.
    """
    with connection.dup() as handle:
        timer = threading.Timer(deadline.remaining_s(), _shut_down, [handle])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut_down(handle: socket.socket) -> None:
    with suppress(OSError):  # the other side has already closed it
        handle.shutdown(socket.SHUT_RDWR)


def _own_name() -> str:
    # getfqdn() may ask a slow name server, so it is not used. smtplib falls back to the same literal.
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _parse_url(url: str) -> _Server:
    # The URL holds a password. `from None` drops the original error, which may quote it.
    try:
        return _server(urlsplit(url))
    except ValueError:
        raise ConfigurationError(
            f"{URL_SETTING} must be smtp://[user:password@]host[:port] or smtps://…, with user and "
            "password in ASCII and percent-encoded"
        ) from None


def _server(parts: SplitResult) -> _Server:
    implicit_tls = parts.scheme == "smtps"
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError
    parts.hostname.encode("idna")  # a bad name raises ValueError here, not at each look-up
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError  # most likely the password contains an unencoded / ? or #
    port = parts.port or (smtplib.SMTP_SSL_PORT if implicit_tls else smtplib.SMTP_PORT)
    user, password = _credential(parts.username), _credential(parts.password)
    if (user is None) != (password is None):
        raise ValueError
    return _Server(parts.hostname, port, implicit_tls, user, password)


def _credential(encoded: str | None) -> str | None:
    plain = unquote(encoded) if encoded else None
    if plain is not None and not plain.isascii():
        raise ValueError
    return plain


def _parse_from(email_from: str) -> tuple[str, str]:
    """Return the address without the name, and its domain.

    Raises:
        ConfigurationError: the text is not exactly one ASCII address.
    """
    addresses = [address for _, address in getaddresses([email_from])]
    match = _ADDRESS.fullmatch(addresses[0])
    if match is None or len(addresses) > 1 or not (addresses[0].isascii() and email_from.isprintable()):
        raise ConfigurationError(f"{FROM_SETTING} must be one ASCII address, or Name <address>")
    return addresses[0], match[1]
