"""The SMTP adapter against servers that are right, wrong, rude and slow."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, BinaryIO
from uuid import UUID

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from invigilator.demo.reference import MailSink, ReceivedMail
from tests.fakes.servers import drip, serving
from tests.peers import peer
from worker.errors import (
    Crowded,
    Misconfigured,
    Permanent,
    Refused,
    ServiceError,
    Transient,
    Unavailable,
)
from worker.lms.ports import Deadline, Mail
from worker.lms.smtp import SmtpMailer

EFFECT = UUID(int=7)
FROM = "Prüfungsamt <exams@lms.example.org>"
PASSWORD = "s3cret:/@%"
PERSONAL = ("ada", "learner.example", "Algebra", "s3cret", "clerk")


def soon() -> Deadline:
    return Deadline.after(30)


def mail(to_address: str = "ada@learner.example", subject: str = "Algebra") -> Mail:
    return Mail(EFFECT, to_address, subject, "Hello Ada\n.\nfrom the ünit\n", "<p>Hello <b>Ada</b>")


def failure_of(
    mailer: SmtpMailer, what: Mail | None = None, deadline: Deadline | None = None
) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        mailer.send(what or mail(), deadline or soon())
    assert not any(word in str(caught.value) for word in PERSONAL)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value


def content(received: ReceivedMail) -> EmailMessage:
    message = message_from_bytes(received.raw, policy=default)
    assert isinstance(message, EmailMessage)
    return message


# A server of a few lines, for what no library lets a server say


class Replies:
    """Speaks enough SMTP to answer each command with what a test wants; None hangs up instead."""

    def __init__(self, replies: Mapping[str, str | None]) -> None:
        usual: dict[str, str | None] = {
            "GREETING": "220 here",
            "EHLO": "250 here",
            "DATA": "354 go on",
            ".": "250 taken",
            "QUIT": "221 bye",
        }
        self.replies = usual | dict(replies)
        self.heard: list[str] = []

    def __call__(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            word = "GREETING"
            while (reply := self.replies.get(word, "250 fine")) is not None:
                connection.sendall(f"{reply}\r\n".encode())
                word = self.next_word(file, in_data=reply.startswith("354"))

    def next_word(self, file: BinaryIO, in_data: bool) -> str:
        line = file.readline()
        while in_data and line != b".\r\n":
            line = file.readline()
        word = line.decode().strip().partition(" ")[0].upper()
        self.heard.append(word)
        if not word:
            raise ConnectionError  # the client has gone
        return word


@contextmanager
def scripted(script: Callable[[socket.socket], None]) -> Iterator[SmtpMailer]:
    with serving(script) as server:
        yield SmtpMailer(f"smtp://127.0.0.1:{server.port}", FROM)


@contextmanager
def replying(replies: Mapping[str, str | None]) -> Iterator[SmtpMailer]:
    with scripted(Replies(replies)) as mailer:
        yield mailer


# The mail


def test_the_mail_says_what_it_should() -> None:
    with MailSink() as sink:
        SmtpMailer(sink.url, FROM).send(mail(), soon())

    (received,) = sink.mails
    message = content(received)
    assert (received.recipient, received.subject) == ("ada@learner.example", "Algebra")
    assert received.message_id == f"<{EFFECT}@lms.example.org>"
    assert message["From"] == FROM
    assert message["To"] == "ada@learner.example"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"].datetime is not None
    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert isinstance(text, EmailMessage)
    assert isinstance(html, EmailMessage)
    assert text.get_content().replace("\r\n", "\n") == "Hello Ada\n.\nfrom the ünit\n"
    assert (html.get_content_type(), html.get_content().strip()) == ("text/html", "<p>Hello <b>Ada</b>")


def test_it_has_the_same_message_id_on_every_try() -> None:
    with MailSink() as sink:
        mailer = SmtpMailer(sink.url, FROM)
        mailer.send(mail(), soon())
        mailer.send(mail(), soon())

    assert sink.duplicates == 1


def test_what_is_sent_is_ascii_for_servers_that_take_nothing_else() -> None:
    with MailSink() as sink:
        SmtpMailer(sink.url, FROM).send(mail(subject="Álgebra " * 40), soon())

    assert sink.mails[0].raw.isascii()
    assert max(len(line) for line in sink.mails[0].raw.splitlines()) < 100
    assert sink.mails[0].subject == "Álgebra " * 40


# What an answer means


EVERY_WORD = ("GREETING", "MAIL", "RCPT", "DATA", ".")


@pytest.mark.parametrize(
    ("words", "code", "kind"),
    [
        (EVERY_WORD, 421, Unavailable),
        (("GREETING", "MAIL"), 451, Unavailable),
        (("RCPT", "DATA", "."), 451, Transient),  # greylisting: another mail may fare better
        (("RCPT", "DATA", "."), 550, Refused),
        (("RCPT", "DATA", "."), 554, Refused),
        (("MAIL",), 552, Refused),  # the size is this mail's
        (("MAIL",), 555, Refused),
        (("GREETING",), 550, Unavailable),  # whoever calls next is told the same
        (("GREETING",), 554, Unavailable),
        (("MAIL",), 550, Misconfigured),
        (EVERY_WORD[1:], 530, Misconfigured),
        (EVERY_WORD[1:], 538, Misconfigured),
    ],
)
def test_an_answer_is_about_the_mail_or_about_every_mail(
    words: Sequence[str], code: int, kind: type[ServiceError]
) -> None:
    for word in words:
        assert_type_of_failure(word, code, kind)


def assert_type_of_failure(word: str, code: int, kind: type[ServiceError]) -> None:
    with replying({word: f"{code} no: ada@learner.example"}) as mailer:
        failure = failure_of(mailer)

    assert type(failure) is kind
    assert str(code) in str(failure)


def test_messages_say_what_was_refused() -> None:
    with replying({"RCPT": "550 no such user"}) as mailer:
        assert str(failure_of(mailer)) == "the mail server refused the recipient (550)"
    with replying({"MAIL": "553 not you"}) as mailer:
        failure = failure_of(mailer)
    assert str(failure) == "the mail server refused INVIGILATOR_EMAIL_FROM as sender (553)"
    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_EMAIL_FROM"
    with replying({"MAIL": "530 5.7.0 must issue a STARTTLS command first"}) as mailer:
        failure = failure_of(mailer)
    assert str(failure) == "the mail server refused to go on without login or encryption (530 5.7.0)"
    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_SMTP_URL"


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("550 5.1.1 no such user", "550 5.1.1"),
        ("550 5.1.10", "550 5.1.10"),
        ("550-5.7.1 ada@learner.example\r\n550 5.7.1 is not here", "550 5.7.1"),
        ("550 mailbox 5.1.1", "550"),
        ("550 5.1.1.1 is a version", "550"),
        ("550 5.1.1234", "550"),
        ("550 \xff", "550"),
    ],
)
def test_of_a_refusal_its_codes_are_kept_and_nothing_else(reply: str, shown: str) -> None:
    with replying({"RCPT": reply}) as mailer:
        assert str(failure_of(mailer)) == f"the mail server refused the recipient ({shown})"


@pytest.mark.parametrize("code", [421, 432])
@pytest.mark.parametrize("word", EVERY_WORD)
def test_one_connection_too_many_is_no_outage_while_there_are_others_of_ours(word: str, code: int) -> None:
    # Given a server that has a conversation with us, and refuses whoever comes next
    reached, go_on = threading.Event(), threading.Event()

    def talk(connection: socket.socket, _ending: threading.Event) -> None:
        reached.set()
        go_on.wait(30)
        Replies({})(connection)

    def refuse(connection: socket.socket, _ending: threading.Event) -> None:
        Replies({word: f"{code} 4.7.0 too many"})(connection)

    with peer(talk) as server:
        mailer = SmtpMailer(f"smtp://{server.address}", FROM)
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(mailer.send, mail(), soon())
            assert reached.wait(30)
            server.behave = refuse
            # When it refuses one more
            failure = failure_of(mailer)
            go_on.set()
            # Then that says how many it has
            assert isinstance(failure, Crowded)
            assert failure.others == 1
            assert f"for now ({code} 4.7.0)" in str(failure)
            assert sent.result() is None
        # and when there is none of ours, it takes nobody
        assert type(failure_of(mailer)) is Unavailable


@pytest.mark.parametrize("word", ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("reply", [None, "gibberish", "HTTP/1.1 400 Bad Request"])
def test_a_broken_conversation_is_transient(word: str, reply: str | None) -> None:
    with replying({word: reply, "HELO": None}) as mailer:
        assert isinstance(failure_of(mailer), Unavailable)


@pytest.mark.parametrize("reply", [None, "421 too late", "550 no", "gibberish"])
def test_once_the_mail_is_accepted_it_is_sent(reply: str | None) -> None:
    server = Replies({"QUIT": reply})
    with scripted(server) as mailer:
        mailer.send(mail(), soon())

    assert server.heard[:5] == ["EHLO", "MAIL", "RCPT", "DATA", "."]


def test_a_conversation_lasts_until_the_server_has_hung_up() -> None:
    # Given a server that takes a moment to forget a connection
    server = Replies({"QUIT": None})
    forgotten = threading.Event()

    def script(connection: socket.socket) -> None:
        server(connection)
        connection.sendall(b"221 bye\r\n")
        forgotten.wait(0.05)
        forgotten.set()

    # When a mail is sent
    with scripted(script) as mailer:
        mailer.send(mail(), soon())
        # Then another one would not be one too many
        assert forgotten.is_set()


def test_a_server_that_never_hangs_up_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.lms.smtp.QUIT_TIMEOUT_S", 0.01)
    server = Replies({"QUIT": "221 bye"})
    with scripted(server) as mailer:
        mailer.send(mail(), soon())

    assert "." in server.heard


def test_nobody_there_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    failure = failure_of(SmtpMailer(f"smtp://127.0.0.1:{port}", FROM))

    assert isinstance(failure, Unavailable)
    assert "ConnectionRefusedError" in str(failure)


def test_a_name_with_several_addresses_is_tried_at_each() -> None:
    with MailSink() as sink:  # on 127.0.0.1 only, while localhost is often ::1 first
        SmtpMailer(sink.url.replace("127.0.0.1", "localhost"), FROM).send(mail(), soon())

    assert len(sink.mails) == 1


# The deadline


@pytest.mark.parametrize("first", [b"", b"220-", b"220 here\r\n", b"220 here\r\n250-"])
def test_a_dripping_server_is_cut_off(first: bytes) -> None:
    with scripted(lambda connection: drip(connection, first, b"2")) as mailer:
        failure = failure_of(mailer, deadline=Deadline.after(0.2))

    assert isinstance(failure, Unavailable)
    assert str(failure) == "the mail server took longer than 0.2 s"


@pytest.mark.usefixtures("hanging")
def test_a_name_server_that_hangs_is_left() -> None:
    failure = failure_of(SmtpMailer("smtp://dead.test", FROM), deadline=Deadline.after(0.2))
    assert str(failure) == "the mail server took longer than 0.2 s"


def test_a_silent_server_is_cut_off() -> None:
    with scripted(lambda connection: drip(connection, b"", b"")) as mailer:
        assert "took longer than 0.2 s" in str(failure_of(mailer, deadline=Deadline.after(0.2)))


def test_a_server_that_drips_instead_of_encrypting_is_cut_off() -> None:
    with serving(lambda connection: drip(connection, b"\x16\x03\x03\x40\x00", b"\x00")) as server:
        failure = failure_of(
            SmtpMailer(f"smtps://127.0.0.1:{server.port}", FROM), deadline=Deadline.after(0.2)
        )

    assert isinstance(failure, Unavailable)


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@learner.example",
        "ada@",
        "ada@learner.example, eve@learner.example",
        "Ada <ada@learner.example>",
        "ada@learner.example\r\nRCPT TO:<eve@learner.example>",
        "ada\x00@learner.example",
        "ada @learner.example",
        "ada@learner.example>",
        "ada\ud800@learner.example",
    ],
)
def test_what_is_no_address_is_permanent_and_goes_nowhere(address: str) -> None:
    with MailSink() as sink:
        failure = failure_of(SmtpMailer(sink.url, FROM), mail(address))

    assert isinstance(failure, Permanent)
    assert sink.mails == []


@pytest.mark.parametrize("subject", ["Algebra\r\nBcc: eve@learner.example", "Algebra \ud800"])
def test_a_subject_that_no_mail_can_carry_is_permanent(subject: str) -> None:
    with MailSink() as sink:
        failure = failure_of(SmtpMailer(sink.url, FROM), mail(subject=subject))

    assert isinstance(failure, Permanent)
    assert sink.mails == []


def test_other_letters_in_an_address_reach_a_server_that_takes_them() -> None:
    with MailSink() as sink:
        SmtpMailer(sink.url, FROM).send(mail("jörg@bücher.example"), soon())

    assert sink.mails[0].recipient == "jörg@bücher.example"
    assert content(sink.mails[0])["To"] == "jörg@bücher.example"


def test_other_letters_in_an_address_are_permanent_elsewhere() -> None:
    with replying({}) as mailer:
        failure = failure_of(mailer, mail("ada-jörg@learner.example"))

    assert isinstance(failure, Permanent)
    assert "SMTPUTF8" in str(failure)


# Encryption and login


class Sink(MailSink):
    """A sink that encrypts, asks for a login, or both."""

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, starttls: bool = True, login: bool = False
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"tls_context": tls} if starttls else {}
        if login:
            self.options |= {"auth_required": True, "auth_require_tls": False, "authenticator": self.check}
        self.encrypted: list[bool] = []

    def conversation(self, loop: asyncio.AbstractEventLoop) -> SMTP:
        return SMTP(self, hostname="localhost", loop=loop, **self.options)

    def check(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        right = LoginPassword(b"clerk@lms", PASSWORD.encode())
        return AuthResult(success=data == right, handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.encrypted.append(session.ssl is not None)
        return await super().handle_DATA(server, session, envelope)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, host: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    return context


def test_starttls_is_used_when_it_is_offered(trusted: trustme.CA) -> None:
    with Sink(server_tls(trusted)) as sink:
        SmtpMailer(sink.url, FROM).send(mail(), soon())

    assert sink.encrypted == [True]


def test_a_certificate_that_nobody_vouches_for_is_refused(authority: trustme.CA) -> None:
    with Sink(server_tls(authority)) as sink:
        failure = failure_of(SmtpMailer(sink.url, FROM))

    assert isinstance(failure, Unavailable)
    assert "SSLCertVerificationError" in str(failure)
    assert sink.mails == []


def test_a_certificate_for_another_host_is_refused(trusted: trustme.CA) -> None:
    with Sink(server_tls(trusted, "mail.example.org")) as sink:
        assert "SSLCertVerificationError" in str(failure_of(SmtpMailer(sink.url, FROM)))

    assert sink.mails == []


def test_a_dripping_server_is_cut_off_behind_starttls_too(trusted: trustme.CA) -> None:
    context = server_tls(trusted)

    def drips_when_encrypted(connection: socket.socket) -> None:
        replies = Replies({"EHLO": "250-here\r\n250 STARTTLS", "STARTTLS": None})
        replies(connection)
        connection.sendall(b"220 go on\r\n")
        with context.wrap_socket(connection, server_side=True) as wrapped:
            drip(wrapped, b"250-", b"2")

    with scripted(drips_when_encrypted) as mailer:
        failure = failure_of(mailer, deadline=Deadline.after(1))

    assert isinstance(failure, Unavailable)
    assert str(failure) == "the mail server took longer than 1 s"


def test_smtps_is_encrypted_from_the_first_byte(trusted: trustme.CA) -> None:
    context = server_tls(trusted)
    replies = Replies({})

    def encrypted(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as wrapped:
            replies(wrapped)

    with serving(encrypted) as server:
        SmtpMailer(f"smtps://127.0.0.1:{server.port}", FROM).send(mail(), soon())

    assert "." in replies.heard


def with_login(url: str, password: str = "s3cret%3A%2F%40%25") -> str:
    return url.replace("//", f"//clerk%40lms:{password}@")


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_the_login_is_percent_decoded_and_may_be_sent_in_clear_to_this_machine() -> None:
    with Sink(login=True) as sink:
        SmtpMailer(with_login(sink.url), FROM).send(mail(), soon())

    assert sink.encrypted == [False]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_wrong_password_is_wrong_for_every_mail() -> None:
    with Sink(login=True) as sink:
        failure = failure_of(SmtpMailer(with_login(sink.url, "s3cret"), FROM))

    assert str(failure) == "the mail server refused the user or password of INVIGILATOR_SMTP_URL (535 5.7.8)"
    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_SMTP_URL"


@pytest.mark.parametrize(
    ("reply", "kind"), [("454 4.7.0 later", Unavailable), ("504 5.5.4 not that way", Misconfigured)]
)
def test_a_login_that_fails_says_nothing_about_the_mail(reply: str, kind: type[ServiceError]) -> None:
    with serving(Replies({"EHLO": "250-here\r\n250 AUTH PLAIN", "AUTH": reply})) as server:
        failure = failure_of(SmtpMailer(with_login(f"smtp://127.0.0.1:{server.port}"), FROM))

    assert type(failure) is kind


@pytest.mark.parametrize("features", ["250 here", "250-here\r\n250 AUTH GSSAPI"])
def test_a_server_without_a_login_that_we_know_is_wrong_for_every_mail(features: str) -> None:
    with serving(Replies({"EHLO": features})) as server:
        failure = failure_of(SmtpMailer(with_login(f"smtp://127.0.0.1:{server.port}"), FROM))

    assert "no way to log in" in str(failure)
    assert isinstance(failure, Misconfigured)
    assert failure.setting == "INVIGILATOR_SMTP_URL"


def test_a_challenge_that_is_none_is_transient() -> None:
    replies = {"EHLO": "250-here\r\n250 AUTH CRAM-MD5", "AUTH": "334 x"}
    with serving(Replies(replies)) as server:
        failure = failure_of(SmtpMailer(with_login(f"smtp://127.0.0.1:{server.port}"), FROM))

    assert isinstance(failure, Transient)
