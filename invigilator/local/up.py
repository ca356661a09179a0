"""Runs the whole system: embedded engines where none are configured, migrations, and the Procfile's processes."""

import os
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TextIO

from sqlalchemy.exc import DBAPIError

from db.errors import Failure, brief, classify
from db.migrate import upgrade
from events.errors import InvigilatorError
from invigilator.local import announcement, postgres, server, single_instance, valkey
from invigilator.local.forkserver import ForkServer
from invigilator.local.guard import Guard
from invigilator.local.procfile import (
    PROCFILE,
    Child,
    Launch,
    Output,
    arguments_of,
    forking,
    launch_in_shell,
    read_procfile,
    stop_children,
)
from invigilator.local.server import Server, Watch
from invigilator.local.supervision import Part, PartEndedError, how_it_ended
from worker import engines, extras
from worker.effects_wiring import check_settings
from worker.logs import OF_UP
from worker.settings import ENV_FILE, PREFIX, Settings, as_variables, host_and_port
from worker.signals import on_stop_signals

# The Procfile's names for what the system continues without: Flower only displays, and commands also come by the
# broker. Each is the name of the extra that it needs.
FLOWER = extras.FLOWER
WEB = extras.WEB
NO_FLOWER = "Flower is not installed, so the tasks are not displayed; to install it"
NO_WEB = "what the HTTP API needs is not installed; to install it"
DISPENSABLE = {FLOWER: NO_FLOWER, WEB: NO_WEB}
FLOWER_PORT = 5555
WEB_ADDRESS = f"{PREFIX}WEB_ADDRESS"
LOG_FORMAT = f"{PREFIX}LOG_FORMAT"
STOP_MARGIN_S = 5.0  # added to a try's deadline: time to record the try and to disconnect
WATCH_S = 0.2


class _Start(Protocol):
    def __call__(self, folder: Path, /, *, watch: Watch) -> Server: ...


class StoppedError(InvigilatorError):
    """The system was stopped before it was up."""

    code = "stopped"


class System:
    """The system that `invigilator up` runs. Entering the `with` block starts it, leaving the block stops it.

        with System(load(), output=log) as system:
            publish(system.settings.broker_url, …)
            system.check()

    After the start, `settings` contains the URLs of the embedded engines, as the processes see them.

    Parameters:
        settings: the settings of the system.
        procfile: the file that names the processes. The default is Invigilator's own.
        output: receives the lines of the processes. The default is standard output.
        migrate: brings the database with the given URL to the current schema.

    Raises (on entering):
        ConfigurationError: a setting is missing or wrong, or an engine cannot run here.
        AlreadyRunningError: another system runs on the data folder.
        StoppedError: `stop` was called meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        procfile: Path = PROCFILE,
        output: TextIO | None = None,
        migrate: Callable[[str], None] = upgrade,
    ) -> None:
        self.settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
        self._procfile = procfile
        self._output = Output(output)
        self._migrate = migrate
        self._resources = ExitStack()
        self._servers: list[Server] = []
        self._has_own_database = False
        self._parts: list[Part[Guard] | Part[ForkServer] | Part[Child]] = []
        self._stop_requests = 0  # no threading.Event: setting one in a signal handler may deadlock

    def run(self) -> None:
        """Run the system until Ctrl-C, SIGTERM or SIGHUP. Only the main thread may call this.

        Raises:
            PartEndedError: an engine ended, or a part kept ending. The whole system was stopped.
            InvigilatorError: the system could not be started, as for entering the `with` block.
        """
        with on_stop_signals(self.stop), suppress(StoppedError), self:
            while not self._stop_requests:
                self.check()
                time.sleep(WATCH_S)

    def stop(self) -> None:
        """Ask `run` to end. After a second call it kills the processes at once, whatever they are doing."""
        self._stop_requests += 1

    def check(self) -> None:
        """Restart the parts that have ended. `run` calls this all the time.

        A caller that does not use `run` must call it a few times a second.

        Raises:
            PartEndedError: an engine has ended, or a part keeps ending. The message says which one.
        """
        for running in self._servers:
            status = running.process.poll()
            if status is not None:
                raise PartEndedError(
                    f"{running.name} ended by itself ({how_it_ended(status)}): the system was stopped"
                )
        for part in self._parts:
            part.check()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.write("stopping")
        self._resources.close()

    def _start(self, stack: ExitStack) -> None:
        check_settings(self.settings)
        commands = self._without_missing(read_procfile(self._procfile))
        self._output.expect(commands)
        lock = stack.enter_context(single_instance.hold(self.settings.data_dir))
        announcement.withdraw(self.settings.data_dir)
        guard = stack.enter_context(Guard(keep_open=[lock]))
        self._parts.append(Part("guard", guard.renew, self._output.write, running=guard))
        launchers = self._launchers(stack, commands)  # the fork server imports while the engines start
        self._start_engines(stack, guard)
        self._bring_to_current_schema()
        self._start_children(stack, guard, commands, launchers)

    def _without_missing(self, commands: dict[str, str]) -> dict[str, str]:
        for name, complaint in DISPENSABLE.items():
            if name in commands and extras.missing(name):
                del commands[name]
                self._output.write(f"{complaint}: {extras.how_to_install(name)}")
        return commands

    def _start_engines(self, stack: ExitStack, guard: Guard) -> None:
        data_dir, urls = self.settings.data_dir, engines.Engines()
        self._has_own_database = self.settings.database_url is None
        if self._has_own_database:
            urls = engines.Engines(self._start_engine(stack, guard, postgres.start, data_dir / "postgres"))
        if self.settings.broker_url is None:
            broker_url = self._start_engine(stack, guard, valkey.start, data_dir / "valkey")
            urls = engines.Engines(urls.database_url, broker_url)
        announcement.announce(data_dir, urls)
        stack.callback(announcement.withdraw, data_dir)
        self.settings = engines.resolve(self.settings)

    def _start_engine(self, stack: ExitStack, guard: Guard, start: _Start, home: Path) -> str:
        self._unless_stopped()
        running = start(home, watch=guard.watch_engine)
        stack.callback(running.stop)
        self._servers.append(running)
        self._output.write(f"{running.name} is up on port {running.port} (data in {home})")
        return running.url

    def _bring_to_current_schema(self) -> None:
        assert self.settings.database_url is not None
        while True:
            self._unless_stopped()
            self.check()
            try:
                self._migrate(self.settings.database_url.get_secret_value())
            except DBAPIError as error:
                # An engine of ours that runs will answer, however busy the machine is.
                if not self._has_own_database or classify(error) is not Failure.UNAVAILABLE:
                    raise
                self._output.write(f"{postgres.NAME} is slow: {brief(error)}; trying again")
                time.sleep(WATCH_S)
            else:
                return

    def _launchers(self, stack: ExitStack, commands: dict[str, str]) -> dict[str, Launch]:
        """Return what starts each of the commands. A fork server is started if it can start one of them."""
        forked = [name for name, command in commands.items() if arguments_of(command) is not None]
        launchers: dict[str, Launch] = dict.fromkeys(commands, launch_in_shell)
        if forked:
            forks = stack.enter_context(ForkServer())
            self._parts.append(Part("fork server", forks.renew, self._output.write, running=forks))
            launchers |= dict.fromkeys(forked, forking(forks))
        return launchers

    def _start_children(
        self, stack: ExitStack, guard: Guard, commands: dict[str, str], launchers: dict[str, Launch]
    ) -> None:
        self._unless_stopped()
        variables = environment(self.settings)
        stack.callback(self._stop_children)
        for name, command in commands.items():
            start = partial(Child, name, command, variables, Path.cwd(), self._output, guard, launchers[name])
            self._parts.append(Part(name, start, self._output.write, indispensable=name not in DISPENSABLE))
        self.check()
        if FLOWER in commands:
            self._output.write(f"Flower is at http://{server.HOST}:{variables['FLOWER_PORT']}")
        if WEB in commands:
            self._output.write(f"the HTTP API is at http://{variables[WEB_ADDRESS]}")

    def _stop_children(self) -> None:
        alive = [part.running for part in self._parts if isinstance(part.running, Child)]
        stop_children(alive, self.settings.call_timeout_s + STOP_MARGIN_S, lambda: self._stop_requests > 1)

    def _unless_stopped(self) -> None:
        if self._stop_requests:
            raise StoppedError


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of the processes: ours, with exactly these settings.

    Our own programs and modules come first on the paths. Secrets travel in the environment, because everybody on
    the machine may read a command line.
    """
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith(PREFIX)}
    variables = others | as_variables(settings)
    variables[ENV_FILE] = ""  # the settings already contain what the file says
    variables["PATH"] = os.pathsep.join(
        filter(None, [*_program_folders(), os.environ.get("PATH", os.defpath)])
    )
    # Celery puts the working folder first on the module path unless the path contains it already. A foreign
    # `celeryconfig.py` or `worker` there must not replace ours, so the folder goes last.
    variables["PYTHONPATH"] = os.pathsep.join([*filter(None, sys.path), str(Path.cwd())])
    variables["PYTHONUNBUFFERED"] = "1"
    variables.setdefault(LOG_FORMAT, OF_UP)
    variables["FLOWER_PORT"] = str(settings.flower_port or _flower_port())
    if "web_address" not in settings.model_fields_set:
        variables[WEB_ADDRESS] = _free_address(settings.web_address)
    return variables


def _program_folders() -> list[str]:
    """Return the folders in which pip puts programs: beside this Python, the scheme's folder, and the user's."""
    of_user = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    return list(dict.fromkeys([str(Path(sys.executable).parent), sysconfig.get_path("scripts"), of_user]))


def _free_address(default: str) -> str:
    host, port = host_and_port(default)
    return f"{host}:{port if server.is_free(port) else server.free_port()}"


def _flower_port() -> int:
    stated = os.environ.get("FLOWER_PORT", "")
    if stated.isdigit():  # beside a service called flower, Kubernetes sets FLOWER_PORT to a URL
        return int(stated)
    return FLOWER_PORT if server.is_free(FLOWER_PORT) else server.free_port()
