"""`invigilator web` as a process."""

import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.compatibility import Schema, compare
from db.errors import brief
from events.cloudevent import source_of
from events.publisher import AsyncPublisher
from invigilator.web.access import Access
from invigilator.web.app import make_app
from invigilator.web.console.app import make_console, read_sign_in
from invigilator.web.console.running import Runner
from invigilator.web.console.signin import Nobody, SignIn
from invigilator.web.followers import Followers
from invigilator.web.health import Readiness
from invigilator.web.impatience import ImpatientProtocol
from invigilator.web.metrics import Metrics
from invigilator.web.outcomes import Outcomes
from invigilator.web.reading import Reader
from invigilator.web.shared_facts import SharedFacts
from invigilator.web.tokens import LOCAL_SOURCE, Tokens, load_tokens
from invigilator.web.waiting import Waiters, look_out
from worker.commands.trust import Trust, load_trust
from worker.errors import ConfigurationError
from worker.health import facts
from worker.heartbeat import STUCK_AFTER_S, WEB, Heartbeat, Look
from worker.logs import get_logger
from worker.settings import PREFIX, Settings, host_and_port
from worker.signals import on_stop_signals, stop_signals_blocked
from worker.subscriptions import load_subscriptions
from worker.threads import Loop, Turning
from worker.wiring import broker_url, comparison, database_engine, start_traces

logger = get_logger(__name__)

GRACE_S = 10
"""Seconds for calls to end after a stop signal. Those that wait for an outcome are answered at once."""
BACKLOG = 1024


class Server(uvicorn.Server):
    """uvicorn's server, which answers those who wait before it ends.

    Parameters:
        app: the application.
        waiters: those who wait.
    """

    def __init__(self, app: FastAPI, waiters: Sequence[Waiters[Any]]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=ImpatientProtocol,
                ws="none",  # a package for WebSockets, if there is one, would have none of our time-outs
                log_config=None,
                access_log=False,  # its lines have the ids of learners
                proxy_headers=False,  # they would replace the address by which the console trusts a proxy
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._waiters = waiters
        self._turning = Turning()

    def look(self) -> Look:
        """Return what the process sees of itself."""
        is_late = self._turning.late_s > STUCK_AFTER_S
        return Look(stuck=["event loop"] if is_late else [], is_stopping=self.should_exit)

    async def on_tick(self, counter: int) -> bool:
        self._turning.expect()
        return await super().on_tick(counter)

    def stop(self) -> None:
        """Ask the server to end. A signal handler may call this."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would end the process by the signal, and so with a status that says that it failed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        with on_stop_signals(self.stop):
            yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for waiters in self._waiters:
            waiters.close()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Serve the API until SIGTERM. Only the main thread may call this.

    Parameters:
        settings: with the addresses of the database and the broker.

    Raises:
        ConfigurationError: the settings are wrong, or the address or the database's schema cannot be used.
    """
    start_traces(settings, "web")
    sign_in = read_sign_in(settings)
    tokens = read_tokens(settings, sign_in)
    trust = load_trust(settings.command_keys_file)
    subscribed = load_subscriptions(settings.subscriptions_file)
    check_sources({LOCAL_SOURCE} if tokens is None else tokens.sources(), trust)
    engine = database_engine(settings, "web")
    reading = database_engine(settings, "web reads", pre_ping=False, autocommit=True)
    reader = Reader(reading)
    url = broker_url(settings)
    runner = Runner()
    outcomes, followers = Outcomes(reader), Followers(reader)
    app = make_app(
        engine=engine,
        reader=reader,
        publisher=AsyncPublisher(url, source=LOCAL_SOURCE, assumed_shards=settings.command_shards),
        outcomes=outcomes,
        followers=followers,
        access=Access(tokens, settings.api_rate),
        signing_key=trust.signing_key if trust else lambda _command: None,
        readiness=Readiness(engine, url),
        scraped=_metrics(settings, engine),
        event_source=source_of(settings.instance),
        console=None if sign_in is None else make_console(engine, sign_in, settings, runner),
    )
    waiters = (outcomes, followers)
    try:
        _check_schema(engine)
        with closing(_listen(settings.web_address)) as listener:
            logger.info(
                "the API is served", address=f"http://{settings.web_address}", console=sign_in is not None
            )
            loops: list[Loop] = [partial(look_out, engine, waiters, settings.poll_s)]
            if compared := comparison(settings, subscribed):
                loops.append(compared.run)
            server = Server(app, waiters)
            beating = database_engine(settings, "heartbeat")
            with Heartbeat(beating, {WEB: server.look}, settings.heartbeat_s):
                run(server, loops, listener)
    finally:
        runner.close()
        engine.dispose()
        reading.dispose()


def _metrics(settings: Settings, engine: Engine) -> Metrics:
    token = settings.metrics_token
    return Metrics(
        engine,
        facts=SharedFacts(partial(facts.read, engine, settings)),
        known=partial(facts.of_database, engine, settings),
        token=None if token is None else token.get_secret_value(),
    )


def run(server: Server, loops: Sequence[Loop], listener: socket.socket) -> None:
    """Run a server, and the loops beside it, until it is stopped or one of them ends.

    Raises:
        Exception: what ended a loop.
    """
    stopping = threading.Event()
    with ThreadPoolExecutor(len(loops), thread_name_prefix="beside") as pool:
        with stop_signals_blocked():
            beside = [pool.submit(loop, stopping) for loop in loops]
        for one in beside:
            one.add_done_callback(lambda _: server.stop())
        try:
            server.run(sockets=[listener])
        finally:
            stopping.set()
        for one in beside:
            one.result()


def read_tokens(settings: Settings, sign_in: SignIn | None) -> Tokens | None:
    """Return the tokens of the configured file. None where everybody on this machine may call.

    Where people must sign in to the console, nobody may call without a token.

    Parameters:
        sign_in: to the console. None where there is none.

    Raises:
        ConfigurationError: the file is wrong, or there is neither a file nor a sign-in and others could come.
    """
    if settings.api_tokens_file is not None:
        return load_tokens(settings.api_tokens_file)
    if isinstance(sign_in, Nobody):
        return None
    if sign_in is not None:
        return Tokens({})
    raise ConfigurationError(
        f"{PREFIX}WEB_ADDRESS: others can reach it, so {PREFIX}API_TOKENS_FILE is needed for the API "
        f"(`invigilator token new NAME` makes a token), or {PREFIX}WEB_OIDC_ISSUER or {PREFIX}WEB_TRUSTED_PROXIES "
        "for the console"
    )


def check_sources(sources: Collection[str], trust: Trust | None) -> None:
    """Make sure that what is sent can be signed.

    Raises:
        ConfigurationError: commands must be signed, and a source has no key.
    """
    missing = sorted(set(sources) - trust.grants.keys()) if trust else []
    if missing:
        raise ConfigurationError(
            f"commands must be signed, and the source {missing[0]} of the API has no key: add it to the "
            f"file of {PREFIX}COMMAND_KEYS_FILE"
        )


def _check_schema(engine: Engine) -> None:
    try:
        with engine.connect() as connection:
            schema = compare(connection)
    except DBAPIError as error:
        logger.warning("the database is away", reason=brief(error))
        return
    if schema is not Schema.USABLE:
        raise ConfigurationError(schema)


def _listen(address: str) -> socket.socket:
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(
            f"{PREFIX}WEB_ADDRESS {address} cannot be used ({reason}); choose another one"
        ) from None
    # asyncio sets this only for sockets that say that they speak TCP, which those of `create_server` do not say.
    # Without it the body of an answer waits until the client has acknowledged the headers: 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return listener
