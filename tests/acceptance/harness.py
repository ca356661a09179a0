"""A whole system for a test: its own database, broker, LMS and mail server, and the Procfile's processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from amqp.exceptions import AMQPError
from redis.exceptions import RedisError
from sqlalchemy import Row, text

from db.connect import make_engine
from invigilator.demo.reference import MailSink
from invigilator.local.guard import Guard
from invigilator.local.procfile import PROCFILE, read_procfile
from tests.acceptance.client import SOURCE, Client
from tests.acceptance.lms import TOKEN, Lms
from tests.authorities import FEW_AUTHORITIES
from tests.chaos.points import Crash, released_by
from tests.forkserver import Crashing, Forked, fork_server, run_to_end

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
"""Where the `invigilator` and the `celery` are that are tested; `Stack.programs` may be set to another folder."""
PATIENCE_S = 150  # how long anything may take before the test gives up; never how long it should take
POLL_S = 0.02
POLL_CAP_S = 0.1
"""Looking costs CPU time, which is what the tests lack: the longer something takes, the rarer are the looks."""
TAIL_CHARS = 6000
WORKERS = ("effects", "mail")
EVERYBODY = ("commands", "relay", *WORKERS)
SETTINGS = {
    "RETRY_BASE_S": "0.1",
    "RETRY_CAP_S": "0.5",
    "LEASE_S": "4",
    "CALL_TIMEOUT_S": "1.5",
    "SHARD_LEASE_S": "1",
    "POLL_S": "0.3",
}

_PROGRESS = """
SELECT (SELECT count(*) FROM outcomes) AS handled,
       (SELECT count(*) FROM quarantine) AS quarantined,
       (SELECT count(*) FROM effects WHERE state IN ('pending', 'running')) AS owed
"""
_STATE = {
    "outcomes": "SELECT outcome, code, count(*) FROM outcomes GROUP BY 1, 2 ORDER BY 1, 2",
    "quarantine": "SELECT code, count(*) FROM quarantine GROUP BY 1 ORDER BY 1",
    "effects": "SELECT kind, state, last_error, count(*) FROM effects GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    "shards": "SELECT * FROM shards ORDER BY shard",
}


class Process:
    """One process of the system, in a group of its own, its output in a file; `crash` is what awaits it.

    Parameters:
        programs: where its program is. Those of this environment are forked, which spares their imports.
    """

    def __init__(
        self,
        name: str,
        command: str,
        environment: dict[str, str],
        folder: Path,
        crash: Crash | None = None,
        programs: Path = PROGRAMS,
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.ended_by_us = False
        self.crash = crash
        self._marker = folder / f"{name}.struck"
        arguments = shlex.split(command)
        self._process: subprocess.Popen[bytes] | Forked
        if programs == PROGRAMS:
            await_crash = () if crash is None else crash.arguments(self._marker)
            program = Crashing(arguments, environment, str(folder), await_crash)
            with self.log.open("ab") as log:
                self._process = fork_server().start(program, log.fileno(), log.fileno())
        else:
            assert crash is None, "only programs of this environment have crash points"
            self._process = _launched(arguments, environment, folder, self.log)
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def is_struck(self) -> bool:
        """Whether its crash has happened: it has ended or stands still, where that is its crash."""
        assert self.crash is not None
        if not self._marker.exists():
            return False
        match self.crash.action:
            case "kill":
                return not self.is_running
            case "stop":
                return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
            case _:
                return True

    @property
    def has_failed(self) -> bool:
        """Whether it has ended though nobody wanted that."""
        killed = self.crash is not None and self.crash.action == "kill" and self._marker.exists()
        return not (self.is_running or self.ended_by_us or killed)

    def output(self) -> str:
        """Everything that it has printed."""
        return self.log.read_text(errors="replace")

    def logged(self) -> list[dict[str, Any]]:
        """The lines of its log. What else it prints, such as Celery's banner, is left out."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]

    def wait(self) -> int:
        """Wait until it has come to its end by itself; returns the exit status."""
        self.ended_by_us = True
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL, the whole group."""
        self.ended_by_us = True
        if self.is_running:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def pause(self) -> None:
        """SIGSTOP."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    def release(self) -> None:
        """Let those go on that wait at its crash point (`hold`)."""
        released_by(self._marker).touch()

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self.ended_by_us = True
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)


def _path(programs: Path) -> str:
    return os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])


def _launched(
    arguments: list[str], environment: dict[str, str], folder: Path, log: Path
) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            arguments,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@cache
def _guard() -> Guard:
    """Watches the processes of all stacks. One guard for each stack would be 0.1 s of CPU time for each."""
    return Guard()


class Stack:
    """The system under test. Leaving the `with` block leaves no process behind, whatever happened.

    Parameters:
        database_url: of a migrated database of its own.
        broker_url: of a broker of its own.
        settings: what differs from `SETTINGS`, without the prefix.
    """

    def __init__(self, database_url: str, broker_url: str, **settings: object) -> None:
        self.database_url = database_url
        self.reading_url = database_url
        """Where the test itself looks."""
        self.broker_url = broker_url
        self.programs = PROGRAMS
        self.procfile = PROCFILE
        self.settings = {**SETTINGS, **{name: str(value) for name, value in settings.items()}}
        self.other_variables: dict[str, str] = {}
        """Variables of the processes that are no settings of ours."""
        self.lms = Lms()
        self.mail = MailSink()
        self.processes: list[Process] = []
        self._resources = ExitStack()
        self._numbers: Counter[str] = Counter()

    def __enter__(self) -> Self:
        with self._resources as resources:
            self.folder = Path(
                resources.enter_context(tempfile.TemporaryDirectory(prefix="invigilator-acc-"))
            )
            self._engine = make_engine(self.reading_url, application_name="acceptance")
            resources.callback(self._engine.dispose)
            self.client = Client(self.broker_url, int(self.settings.get("COMMAND_SHARDS", "1")))
            resources.callback(self.client.close)
            resources.enter_context(self.lms)
            resources.enter_context(self.mail)
            resources.callback(self._kill_all)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def _kill_all(self) -> None:
        for process in self.processes:
            process.kill()
            _guard().forget(process.pid)

    # --- processes -------------------------------------------------------------------------------------

    def start(self, name: str, *, crash: Crash | None = None, **settings: object) -> Process:
        """Start one of the Procfile's processes; `crash` and `settings` are for this one only."""
        return self._start(name, settings, crash)

    def start_from(self, programs: Path, name: str) -> Process:
        """Start one of the Procfile's processes, with the programs of another folder."""
        return self._start(name, {}, None, programs)

    def _start(
        self, name: str, settings: dict[str, object], crash: Crash | None, programs: Path | None = None
    ) -> Process:
        self._numbers[name] += 1
        number = self._numbers[name]
        return self._launch(f"{name}-{number}", read_procfile(self.procfile)[name], settings, crash, programs)

    def celery(self, *arguments: str) -> Process:
        """Start `celery -A worker.app` with these arguments."""
        return self.program("celery", "-A", "worker.app", *arguments)

    def program(self, name: str, *arguments: str) -> Process:
        """Start a program with these arguments, such as a command that is to be killed."""
        self._numbers[name] += 1
        return self._launch(f"{name}-{self._numbers[name]}", shlex.join([name, *arguments]), {})

    def _launch(
        self,
        name: str,
        command: str,
        settings: dict[str, object],
        crash: Crash | None = None,
        programs: Path | None = None,
    ) -> Process:
        programs = programs or self.programs
        environment = {**self._environment(settings), "PATH": _path(programs)}
        process = Process(name, command, environment, self.folder, crash, programs)
        _guard().watch_group(process.pid)
        self.processes.append(process)
        return process

    def start_all(self) -> None:
        """Start one of each."""
        for name in EVERYBODY:
            self.start(name)

    def running(self, name: str) -> list[Process]:
        """The running processes of this name, the oldest first."""
        return [one for one in self.processes if one.name.startswith(f"{name}-") and one.is_running]

    def owner(self, shard: int = 0) -> Process | None:
        """The running process that has the shard, if there is one."""
        rows = self.rows("SELECT owner FROM shards WHERE shard = :shard AND owner IS NOT NULL", shard=shard)
        pids = [int(row.owner.split(":")[1]) for row in rows]
        return next((one for one in self.running("commands") if one.pid in pids), None)

    def some_owner(self, shard: int = 0) -> Process:
        """Whoever has the shard, as soon as somebody has it."""
        self.wait_until(lambda: self.owner(shard) is not None, "somebody to take the shard")
        owner = self.owner(shard)
        assert owner is not None
        return owner

    def cli(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `invigilator`."""
        environment = self._environment({})
        if self.programs == PROGRAMS:
            ran = run_to_end(["invigilator", *arguments], environment, self.folder, PATIENCE_S)
        else:
            ran = subprocess.run(
                [self.programs / "invigilator", *arguments],
                env=environment,
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
        if check:
            ran.check_returncode()
        return ran

    def _environment(self, settings: dict[str, object]) -> dict[str, str]:
        ours = {
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.broker_url,
            "LMS_URL": self.lms.url,
            "LMS_TOKEN": TOKEN,
            "SMTP_URL": self.mail.url,
            **self.settings,
            **{name: str(value) for name, value in settings.items()},
        }
        return {
            **FEW_AUTHORITIES,
            **self.other_variables,
            "PATH": _path(self.programs),
            "PYTHONUNBUFFERED": "1",
            **{f"INVIGILATOR_{name}": value for name, value in ours.items()},
        }

    # --- looking -----------------------------------------------------------------------------------------

    def rows(self, query: str, **parameters: object) -> list[Row[Any]]:
        """Ask the database."""
        with self._engine.connect() as connection:
            return list(connection.execute(text(query), parameters))

    def execute(self, statements: str) -> None:
        """Change the database, behind the system's back."""
        with self._engine.begin() as connection:
            connection.execute(text(statements))

    def number(self, query: str, **parameters: object) -> int:
        """Ask the database for one number."""
        [[number]] = self.rows(query, **parameters)
        return int(number)

    def handled(self) -> int:
        """How many commands have an outcome."""
        return self.number("SELECT count(*) FROM outcomes")

    def owed(self) -> int:
        """How many effects are pending or running."""
        return self.number("SELECT count(*) FROM effects WHERE state IN ('pending', 'running')")

    def outcome(self, command_id: str) -> tuple[str, str | None]:
        """The outcome of a command and its code."""
        [row] = self.rows(
            "SELECT outcome, code FROM outcomes JOIN inbox ON inbox.id = inbox_id "
            "WHERE source = :source AND command_id = :id",
            source=SOURCE,
            id=command_id,
        )
        return row.outcome, row.code

    def attempt(self, exam_id: str, user_id: str) -> Row[Any]:
        """The live attempt."""
        [row] = self.rows(
            "SELECT * FROM attempts WHERE exam_id = :exam AND user_id = :user AND removed_at IS NULL",
            exam=exam_id,
            user=user_id,
        )
        return row

    def history(self, exam_id: str, user_id: str) -> list[str]:
        """The statuses that a learner's attempts at an exam have had."""
        rows = self.rows(
            "SELECT to_status FROM transitions t JOIN attempts a ON a.id = attempt_id "
            "WHERE exam_id = :exam AND user_id = :user ORDER BY a.id, t.version",
            exam=exam_id,
            user=user_id,
        )
        return [row.to_status for row in rows]

    def effects(self, user_id: str) -> list[tuple[str, str | None]]:
        """(kind, status) of each effect that a learner was ever owed, oldest first."""
        rows = self.rows(
            "SELECT kind, payload->>'status' AS status FROM effects WHERE user_id = :user ORDER BY sequence",
            user=user_id,
        )
        return [(row.kind, row.status) for row in rows]

    # --- waiting -----------------------------------------------------------------------------------------

    def wait_until(
        self, condition: Callable[[], bool], what: str, *, longest_pause_s: float = POLL_CAP_S
    ) -> None:
        """Wait until something is so.

        Parameters:
            longest_pause_s: between two looks; `POLL_S` for a condition that may be true for a moment only.

        Raises:
            AssertionError: a process ended by itself, or it takes for ever; with the state of everything.
        """
        deadline = time.monotonic() + PATIENCE_S
        pause_s = POLL_S
        while not condition():
            self._assert_alive(what)
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain for {what}\n{self.report()}")
            time.sleep(pause_s)
            pause_s = min(1.2 * pause_s, longest_pause_s)
        self._assert_alive(what)

    def _assert_alive(self, what: str) -> None:
        dead = [one.name for one in self.processes if one.has_failed]
        if dead:
            raise AssertionError(f"{', '.join(dead)} ended while waiting for {what}\n{self.report()}")

    def wait_until_struck(self, process: Process) -> None:
        """Wait until a process has met its crash point, and has ended or stands still if that is its crash."""
        self.wait_until(lambda: process.is_struck, f"{process.name} to meet its crash point")

    def wait_until_handled(self, commands: int) -> None:
        """Wait until so many commands have an outcome."""
        self.wait_until(lambda: self.handled() >= commands, f"{commands} commands to be handled")

    def settle(self) -> None:
        """Wait until every message is an outcome or in quarantine, and nothing is owed any more."""
        self.wait_until(self._is_settled, "everything to be handled and nothing to be owed")

    def settle_commands(self) -> None:
        """Wait until every message is an outcome or in quarantine."""
        self.wait_until(self._all_handled, "every message to be handled")

    def _is_settled(self) -> bool:
        return self._all_handled() and self.owed() == 0

    def _all_handled(self) -> bool:
        [progress] = self.rows(_PROGRESS)
        return (
            progress.handled >= len(self.client.bodies)
            and progress.quarantined >= len(self.client.malformed)
            and self.client.waiting() == 0
        )

    def report(self) -> str:
        """The state of the tables and the end of each log."""
        parts = [f"published {len(self.client.bodies)}, malformed {len(self.client.malformed)}"]
        try:
            parts.append(f"waiting in the broker: {self.client.waiting()}")
        except (OSError, RedisError, AMQPError) as error:  # a test may have taken it away
            parts.append(f"the broker does not answer: {type(error).__name__}")
        for title, query in _STATE.items():
            parts += [f"--- {title}", *(str(tuple(row)) for row in self.rows(query))]
        for process in self.processes:
            parts += [f"--- {process.log.name}", process.output()[-TAIL_CHARS:]]
        return "\n".join(parts)
