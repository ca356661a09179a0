"""Mail over SMTP, with the standard library's client and a deadline over the whole conversation."""

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

from worker.errors import ConfigurationError, Misconfigured, Permanent
from worker.lms.ports import Deadline, Mail
from worker.lms.smtp_failures import FROM_SETTING, URL_SETTING, WHO, failure

PARTING_S = 1.0
"""How long a server may take to hang up when everything is said."""

# What a mailbox may look like. Quoted local parts and address literals exist on paper only, and everything
# that could end a command or name a second recipient is kept out.
_WORD = r"[^\s\x00-\x20\x7f\ud800-\udfff@<>()\[\]\\,;:\"]+"
_ADDRESS = re.compile(f"{_WORD}@({_WORD})")


class SmtpMailer:
    """One connection for each mail. Safe to call from many threads.

    With `smtp://` the connection is encrypted when the server offers STARTTLS, with `smtps://` always; either
    way the certificate must be good for the host and signed by an authority of the system's store. That holds
    for a server on this machine too: point `SSL_CERT_FILE` at a certificate that it made itself.
    The password is never sent in clear, except to this machine.
    """

    def __init__(self, url: str, email_from: str) -> None:
        """Check the settings; nothing is connected.

        Parameters:
            url: `smtp://[user:password@]host[:port]` or `smtps://…`; user and password percent-encoded.
            email_from: an address, or `Name <address>`.

        Raises:
            ConfigurationError: a setting that cannot work.
        """
        self._server = _parse_url(url)
        self._from = email_from
        self._sender, self._domain = _parse_from(email_from)
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._conversations = 0

    def send(self, mail: Mail, deadline: Deadline) -> None:
        """Send one mail. Once the server has accepted it, it is sent, whatever happens to the connection.

        Raises:
            Misconfigured: the login, its encryption, or the sender is refused.
            Crowded: one connection too many, while there are others of ours.
            Unavailable: no connection, a broken one, an answer that is not about this mail, or the deadline.
            Transient: a 4xx answer to this recipient or mail.
            Refused: a 5xx answer to this recipient or mail.
            Permanent: an address that no server takes, or an extension that this server lacks.
        """
        deadline.check(WHO)
        message = self._compose(mail)
        with self._conversation():
            try:
                self._converse(mail.to_address, message, deadline)
            except (OSError, ValueError) as error:
                # OSError is the root of smtplib's errors, too; a ValueError is a challenge that is no base64.
                # What they say is left out: it quotes the recipient.
                raise failure(error, deadline, self._conversations - 1) from None

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
            client.part()

    def _compose(self, mail: Mail) -> bytes:
        if not _ADDRESS.fullmatch(mail.to_address):
            raise Permanent("the learner's e-mail address is none that a mail server takes")
        # Bodies in 7 bits, because not every server takes 8; UTF-8 headers only where an address needs them.
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
                f"{WHO} offers no encryption, and the password is not sent in clear; use smtps://",
                setting=URL_SETTING,
            )
        client.login(self._server.user, self._server.password)

    def _hand_over(self, client: "_Client", to_address: str, message: bytes) -> None:
        options: tuple[str, ...] = ()
        if not to_address.isascii():
            if not client.has_extn("smtputf8"):
                raise Permanent(f"{WHO} takes ASCII addresses only, and the learner's is none (SMTPUTF8)")
            options = ("SMTPUTF8", "BODY=8BITMIME")
        client.sendmail(self._sender, [to_address], message, options)


class _Client(smtplib.SMTP):
    """smtplib's client over a socket that we have dialled."""

    def __init__(self, server: "_Server", dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        super().__init__(server.host, server.port, local_hostname=_own_name())

    def _get_socket(self, *_: object) -> socket.socket:  # where SMTP_SSL steps in, too
        return self._dial()

    def part(self) -> None:
        """Say goodbye, and wait until the server hangs up: until then it counts this connection."""
        with suppress(OSError):
            self.docmd("QUIT")
            assert self.sock is not None
            self.sock.settimeout(PARTING_S)
            self.sock.recv(1)

    def is_private(self) -> bool:
        """Whether nobody between here and the server can read along."""
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
    """Whether an IP address, with or without a `%scope`, is a loopback one."""
    return ip_address(address.partition("%")[0]).is_loopback


def _connect(server: _Server, deadline: Deadline) -> socket.socket:
    """Connect to the first address that answers. Each gets its share of the time: a dead one leaves some."""
    addresses = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError()
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_share(deadline, len(addresses) - tried))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            connection.settimeout(_share(deadline, 1))
            return connection
    raise failure


def _share(deadline: Deadline, among: int) -> float:
    return max(deadline.remaining_s() / among, 0.001)  # a time-out of 0 would mean not to block at all


@contextmanager
def _cut_off(connection: socket.socket, deadline: Deadline) -> Iterator[None]:
    """Shut the connection down at the deadline: a server that drips a byte a second outlives other time-outs.

    A second handle on it is kept, because TLS takes the first one over in the middle of the conversation.
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
    with suppress(OSError):  # the other side was faster
        handle.shutdown(socket.SHUT_RDWR)


def _own_name() -> str:
    # Not getfqdn(), which may ask a slow name server. The literal is what smtplib falls back to.
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _parse_url(url: str) -> _Server:
    # The URL holds a password: no message quotes it, nor the error that does.
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
    parts.hostname.encode("idna")  # or it fails at each look-up, with a ValueError as here
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError  # an unencoded / ? or # in the password, most likely
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
    """The bare address and its domain."""
    addresses = [address for _, address in getaddresses([email_from])]
    match = _ADDRESS.fullmatch(addresses[0])
    if match is None or len(addresses) > 1 or not (addresses[0].isascii() and email_from.isprintable()):
        raise ConfigurationError(f"{FROM_SETTING} must be one ASCII address, or Name <address>")
    return addresses[0], match[1]
