"""`invigilator up` as a process, with dummies for the Procfile's processes, stopped in every way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from invigilator.local import announcement
from invigilator.local.liveness import is_alive
from invigilator.local.supervision import KEEPS_ENDING, PAUSES_S
from invigilator.local.up import System, environment
from tests import engines
from tests.forkserver import Forked, Program, fork_server
from worker.engines import Engines, find_engines, resolve
from worker.errors import ConfigurationError
from worker.settings import Settings, load

ROOT = Path(__file__).parents[3]
PATIENCE_S = 150  # how long anything may take before the test gives up; never how long it should take
PATIENT = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(float(sys.argv[3]))
    pathlib.Path(sys.argv[2], "ended-in-peace").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[2], "started").touch()
print("working", flush=True)
time.sleep(600)
"""


@dataclass
class Started:
    """A process of `up`, its output in files."""

    process: Forked
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def to_its_end(self) -> tuple[str, str]:
        """What it has printed, and its errors."""
        self.process.wait(PATIENCE_S)
        return self.output.read_text(), self.errors.read_text()


@dataclass
class Up:
    """Starts `up` on a folder, and knows every process that mentions the folder."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    started: list[Started] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def procfile(self, *commands: str) -> None:
        lines = [f"part{number}: {command}" for number, command in enumerate(commands)]
        (self.folder / "Procfile").write_text("\n".join(lines))

    def patient(self, seconds_to_end: float = 0) -> str:
        """A command that takes its time to end, in a shell that stays."""
        (self.folder / "patient.py").write_text(PATIENT)
        return f"true; python {self.folder}/patient.py mark {self.folder} {seconds_to_end} ; false"

    def start(self) -> Started:
        program = Program(
            ["tests.integration.local.run_system", str(self.folder / "Procfile")],
            {**os.environ, "INVIGILATOR_DATA_DIR": str(self.data_dir), **self.variables},
            str(ROOT),
        )
        number = len(self.started)
        paths = self.folder / f"output-{number}", self.folder / f"errors-{number}"
        with paths[0].open("wb") as output, paths[1].open("wb") as errors:
            process = fork_server().start(program, output.fileno(), errors.fileno())
        self.started.append(started := Started(process, *paths))
        return started

    def start_and_wait(self) -> Started:
        """Start it where it has run before, and wait until it is up."""
        if not self.data_dir.exists():
            engines.give_database(self.data_dir / "postgres")
        process = self.start()
        until(lambda: (self.folder / "started").exists() or process.returncode is not None)
        assert process.returncode is None, process.to_its_end()
        return process

    def processes(self) -> list[psutil.Process]:
        """What runs for this folder, or holds its lock."""
        lock = self.data_dir / "lock"
        return [process for process in psutil.process_iter() if self._is_ours(process, lock)]

    def _is_ours(self, process: psutil.Process, lock: Path) -> bool:
        try:
            mentioned = any(str(self.folder) in word for word in process.cmdline())
            return mentioned or any(Path(file.path) == lock for file in process.open_files())
        except psutil.Error:
            return False


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def patient_processes(up: Up) -> list[psutil.Process]:
    """The shell of the patient command, and its program."""
    file = f"{up.folder}/patient.py"
    found = [one for one in psutil.process_iter(["cmdline"]) if file in " ".join(one.info["cmdline"] or ())]
    return sorted(found, key=lambda one: one.name() != "sh")


def guard_of(process: Started) -> psutil.Process | None:
    for one in psutil.process_iter(["ppid", "cmdline"]):
        if one.info["ppid"] == process.pid and "invigilator.local.guard" in (one.info["cmdline"] or ()):
            return one
    return None


@pytest.fixture
def up(tmp_path: Path, postgres_url: str) -> Iterator[Up]:
    """`postgres_url` is asked for because it skips the test where engines cannot run."""
    up = Up(tmp_path)
    try:
        yield up
    finally:
        for leftover in up.processes():
            leftover.kill()
        for process in up.started:
            process.kill()
            process.to_its_end()


def settings(up: Up) -> Settings:
    return Settings(_env_file=None, data_dir=up.data_dir)


def answers(up: Up) -> bool:
    found = resolve(settings(up))
    assert found.database_url is not None
    assert found.broker_url is not None
    url = make_url(found.database_url.get_secret_value()).set(drivername="postgresql")
    psycopg2.connect(url.render_as_string(hide_password=False)).close()
    with redis.Redis.from_url(found.broker_url.get_secret_value()) as client:
        return bool(client.ping())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_in_order(up: Up, number: signal.Signals) -> None:
    up.procfile(up.patient(seconds_to_end=1))
    process = up.start_and_wait()
    assert answers(up)

    process.send_signal(number)
    output, errors = process.to_its_end()

    assert (process.returncode, errors) == (0, "")
    assert "working" in output
    assert (up.folder / "ended-in-peace").exists()
    assert up.processes() == []
    assert find_engines(up.data_dir) is None


def test_a_second_signal_does_not_wait(up: Up) -> None:
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()

    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.returncode is None
    process.send_signal(signal.SIGINT)
    process.to_its_end()

    assert process.returncode == 0
    assert up.processes() == []


def test_whoever_does_not_end_is_killed(up: Up) -> None:
    up.variables = {"INVIGILATOR_CALL_TIMEOUT_S": "0.1"}
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()

    process.send_signal(signal.SIGTERM)
    process.to_its_end()

    assert process.returncode == 0
    assert up.processes() == []


@pytest.mark.parametrize("end", ["exit 0", "exit 3", "kill -9 $$"])
def test_a_part_that_ends_is_started_again_with_its_name(up: Up, end: str) -> None:
    # Given a part that ends when it is first run, and another one
    again = up.folder / "again"
    up.procfile(
        f"if test -e {again}; then {up.patient()}; fi; touch {again}; {end}", f"sleep 600 # {up.folder}"
    )
    # When it has ended
    process = up.start_and_wait()
    process.send_signal(signal.SIGTERM)
    output, errors = process.to_its_end()
    # Then it was started again, everything was stopped as ever, and its lines have its name
    assert (process.returncode, errors) == (0, "")
    how = {"exit 0": "status 0", "exit 3": "status 3", "kill -9 $$": "killed by SIGKILL"}[end]
    assert f"up    | part0 ended by itself ({how}): it is started again in 0.25 s" in output
    assert "part0 | working" in output
    assert "part1 ended" not in output
    assert (up.folder / "ended-in-peace").exists()
    assert up.processes() == []


def test_a_part_that_keeps_ending_stops_everything_and_is_named(up: Up) -> None:
    up.procfile(up.patient(), f"while ! test -e {up.folder}/started; do sleep 0.1; done; exit 3")
    process = up.start()

    _, errors = process.to_its_end()

    assert process.returncode == 1
    assert errors == (
        f"part1 ended by itself (status 3) {KEEPS_ENDING} times in a row: the system was stopped\n"
    )
    assert (up.folder / "ended-in-peace").exists()
    assert up.processes() == []


@pytest.mark.parametrize("name", ["flower", "web"])
def test_what_only_shows_may_keep_ending(up: Up, name: str) -> None:
    # Given a part that cannot run
    count = up.folder / "count"
    (up.folder / "Procfile").write_text(f"{name}: echo >> {count}; exit 1\nwork: {up.patient()}\n")
    process = up.start_and_wait()
    # When it has ended more often than others may
    until(lambda: count.exists() and len(count.read_text().splitlines()) > KEEPS_ENDING)
    # Then everything else goes on
    assert answers(up)
    process.send_signal(signal.SIGTERM)
    _, errors = process.to_its_end()
    assert (process.returncode, errors) == (0, "")
    assert (up.folder / "ended-in-peace").exists()
    assert up.processes() == []


def test_a_signal_ends_the_pause_of_a_part_that_is_to_be_started_again(up: Up) -> None:
    # Given a part that has ended often enough for a pause of seconds
    count = up.folder / "count"
    up.procfile(f"echo >> {count}; exit 1", up.patient())
    process = up.start_and_wait()
    until(lambda: f"again in {PAUSES_S[KEEPS_ENDING - 2]:g} s" in process.output.read_text())
    # When everything is told to stop
    process.send_signal(signal.SIGINT)
    _, errors = process.to_its_end()
    # Then the part was not started once more
    assert (process.returncode, errors) == (0, "")
    assert len(count.read_text().splitlines()) == KEEPS_ENDING - 1
    assert up.processes() == []


def test_what_is_left_of_a_part_ends_before_it_is_started_again(up: Up) -> None:
    # Given a shell with a program, of which the shell alone is killed
    up.procfile(up.patient())
    process = up.start_and_wait()
    shell, program = patient_processes(up)
    (up.folder / "started").unlink()
    shell.kill()
    # When the part is started again
    until((up.folder / "started").exists)
    # Then the program that was left has been killed
    assert not is_alive(program)
    assert len(patient_processes(up)) == 2
    process.send_signal(signal.SIGTERM)
    process.to_its_end()
    assert up.processes() == []


def test_kill_9_after_a_part_was_started_again_leaves_no_process(up: Up) -> None:
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()
    (up.folder / "started").unlink()
    patient_processes(up)[0].kill()
    until((up.folder / "started").exists)

    process.kill()

    until(lambda: up.processes() == [])


def test_kill_9_before_a_part_is_started_again_leaves_no_process(up: Up) -> None:
    # Given a shell that has ended without its program, while nobody could notice
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()
    process.send_signal(signal.SIGSTOP)
    patient_processes(up)[0].kill()
    # When there is nobody left to notice
    process.kill()
    # Then the program ends all the same
    until(lambda: up.processes() == [])


def test_kill_9_while_parts_keep_ending_leaves_no_process(up: Up) -> None:
    for wait_s in (0.0, 0.3, 0.7):
        # Given parts that end all the time, and leave something of themselves
        mark = up.folder / "started"
        up.procfile(*[f"touch {mark}; tail -f {mark} & sleep 0.0{part}" for part in range(6)])
        process = up.start_and_wait()
        # When all of it is killed at some moment
        time.sleep(wait_s)
        process.kill()
        # Then nothing is left
        until(lambda: up.processes() == [])
        mark.unlink()


def test_nothing_runs_of_a_part_that_the_guard_does_not_know(tmp_path: Path) -> None:
    # Given an `up` that is killed when it has started a part, before the guard knows
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from invigilator.local.procfile import Child, Output
        from invigilator.local.guard import Guard
        class Late(Guard):
            def watch_group(self, pid):
                print(pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        Child("part", f"touch {sys.argv[1]}/ran", os.environ, Path("/"), Output(), Late())
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        shell = psutil.Process(int(killed.stdout.readline()))
    # When the part's shell has ended
    until(lambda: not is_alive(shell))
    # Then it has run nothing
    assert not (tmp_path / "ran").exists()


def test_kill_9_of_the_guard_does_not_stop_anything(up: Up) -> None:
    # Given a guard that was killed
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()
    first = guard_of(process)
    assert first is not None
    first.kill()
    until(lambda: guard_of(process) not in (None, first))
    assert answers(up)
    assert len(patient_processes(up)) == 2
    # When everything is killed that the new one was told of, and not it
    process.kill()
    # Then nothing is left, engines included
    until(lambda: up.processes() == [])


@pytest.mark.parametrize("name", ["postgres", "valkey-server"])
def test_an_engine_that_dies_stops_everything_and_is_named(up: Up, name: str) -> None:
    up.procfile(up.patient())
    process = up.start_and_wait()

    next(one for one in up.processes() if one.name() == name).kill()
    _, errors = process.to_its_end()

    assert process.returncode == 1
    assert errors.endswith(" ended by itself (killed by SIGKILL): the system was stopped\n")
    until(lambda: up.processes() == [])


def test_the_next_up_after_kill_9_keeps_the_data(up: Up) -> None:
    up.procfile(up.patient())
    process = up.start_and_wait()
    with redis.Redis.from_url(broker_url(up)) as client:
        client.set("answer", 42)

    process.kill()
    (up.folder / "started").unlink()
    second = up.start_and_wait()  # at once: it waits for what the first one left to end

    with redis.Redis.from_url(broker_url(up)) as client:
        assert client.get("answer") == b"42"
    second.send_signal(signal.SIGTERM)
    second.to_its_end()
    assert up.processes() == []


def broker_url(up: Up) -> str:
    url = resolve(settings(up), database=False).broker_url
    assert url is not None
    return url.get_secret_value()


def test_kill_9_leaves_no_process(up: Up) -> None:
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()
    assert len(up.processes()) > 3

    process.kill()

    until(lambda: up.processes() == [])
    assert find_engines(up.data_dir) is None
    with pytest.raises(
        ConfigurationError, match="no database configured: set INVIGILATOR_DATABASE_URL, or run"
    ):
        resolve(settings(up))


def test_kill_9_of_everything_is_recovered_from(up: Up) -> None:
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()
    everything = up.processes()
    for one in everything:
        one.suspend()
    for one in everything:
        one.kill()
    process.to_its_end()
    (up.folder / "started").unlink()

    up.start_and_wait()

    assert answers(up)


def test_engines_that_outlived_up_and_its_guard_are_replaced(up: Up) -> None:
    up.procfile(up.patient(seconds_to_end=300))
    process = up.start_and_wait()
    leftovers = [one for one in up.processes() if one.name() in ("postgres", "valkey-server")]
    for one in up.processes():
        if one not in leftovers:
            one.suspend()
    for one in up.processes():
        if one not in leftovers:
            one.kill()
    process.to_its_end()
    (up.folder / "started").unlink()

    up.start_and_wait()

    assert answers(up)
    assert not any(is_alive(one) for one in leftovers)


def test_a_test_run_that_is_killed_leaves_no_engine(tmp_path: Path, postgres_url: str) -> None:
    code = """if True:
        import time
        from tests import engines
        with engines.running_valkey() as server:
            print(server.process.pid, flush=True)
            time.sleep(600)
    """
    command, variables = [sys.executable, "-c", code], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        engine = psutil.Process(int(run.stdout.readline()))
        run.kill()

    until(lambda: not is_alive(engine))


def test_a_second_up_on_the_same_folder_is_refused(up: Up) -> None:
    up.procfile(up.patient())
    process = up.start_and_wait()

    second = up.start()
    _, errors = second.to_its_end()

    assert second.returncode == 1
    assert errors == f"`invigilator up` is already running on {up.data_dir} (process {process.pid})\n"
    assert process.returncode is None
    assert answers(up)


def test_it_can_be_stopped_before_it_is_up(up: Up) -> None:
    up.procfile(up.patient())
    process = up.start()
    until(lambda: up.data_dir.exists())

    process.send_signal(signal.SIGINT)
    _, errors = process.to_its_end()

    assert (process.returncode, errors) == (0, "")
    assert not (up.folder / "started").exists()
    assert up.processes() == []


def test_no_secret_is_printed_or_on_a_command_line(up: Up) -> None:
    up.procfile(up.patient())
    process = up.start_and_wait()
    secrets = [(up.data_dir / name / "password").read_text() for name in ("postgres", "valkey")]
    lines = [word for one in up.processes() for word in one.cmdline()]

    process.send_signal(signal.SIGTERM)
    output, _ = process.to_its_end()

    assert not any(secret in line for secret in secrets for line in [*lines, output])
    assert (up.data_dir / "lock").stat().st_mode & 0o077 == 0


def test_only_what_is_not_configured_is_embedded(up: Up) -> None:
    with engines.running_valkey() as server:
        up.variables = {"INVIGILATOR_BROKER_URL": server.url}
        up.procfile(up.patient())
        up.start_and_wait()

        found = find_engines(up.data_dir)

    assert found is not None
    assert found.database_url is not None
    assert found.broker_url is None
    assert not (up.data_dir / "valkey").exists()


def test_the_system_as_a_context_manager(up: Up) -> None:
    marker = up.folder / "environment.json"
    dump = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    up.procfile(f'python -c "{dump}" {marker}.new; mv {marker}.new {marker}; sleep 600 # {up.folder}')
    given = settings(up).model_copy(update={"lms_url": "http://localhost:1"})

    with (
        (up.folder / "up.log").open("w") as log,
        System(given, procfile=up.folder / "Procfile", output=log, migrate=lambda url: None) as system,
    ):
        until(marker.exists)
        system.check()
        assert system.settings.lms_url == "http://localhost:1"
        assert answers(up)

    variables = json.loads(marker.read_text())
    assert system.settings.database_url is not None
    assert variables["INVIGILATOR_DATABASE_URL"] == system.settings.database_url.get_secret_value()
    assert variables["INVIGILATOR_BROKER_URL"].startswith("redis://default:")
    assert variables["INVIGILATOR_LMS_URL"] == "http://localhost:1"
    assert variables["PATH"].startswith(str(Path(sys.executable).parent))
    assert up.processes() == []


class SlowDatabase:
    """Migrates a database that does not answer in time at first."""

    def __init__(self, silences: int) -> None:
        self.silences = silences
        self.asked: list[str] = []

    def migrate(self, url: str) -> None:
        self.asked.append(url)
        if len(self.asked) <= self.silences:
            raise OperationalError(None, None, psycopg2.OperationalError("timeout expired"))


def test_a_database_of_ours_that_is_slow_is_waited_for(up: Up, valkey_url: str) -> None:
    up.procfile(f"sleep 600 # {up.folder}")
    given = settings(up).model_copy(update={"broker_url": SecretStr(valkey_url)})
    slow = SlowDatabase(2)
    with (
        (up.folder / "up.log").open("w") as log,
        System(given, procfile=up.folder / "Procfile", output=log, migrate=slow.migrate),
    ):
        assert len(slow.asked) == 3
    assert (up.folder / "up.log").read_text().count("PostgreSQL is slow: ") == 2


def test_a_configured_database_that_does_not_answer_is_not_waited_for(up: Up, valkey_url: str) -> None:
    up.procfile(f"sleep 600 # {up.folder}")
    elsewhere = {"broker_url": SecretStr(valkey_url), "database_url": SecretStr("postgresql://127.0.0.1:1/x")}
    slow = SlowDatabase(1)
    system = System(
        settings(up).model_copy(update=elsewhere), procfile=up.folder / "Procfile", migrate=slow.migrate
    )
    with pytest.raises(OperationalError), system:
        pass
    assert len(slow.asked) == 1


def test_secrets_reach_the_processes_by_their_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings(
        _env_file=None, data_dir=Path("here"), flower_broker_api=SecretStr("http://guest:pw@mq/api/")
    )
    monkeypatch.setenv("INVIGILATOR_POLICIES_FILE", "of our environment, not of these settings")

    variables = environment(given)

    assert variables["INVIGILATOR_FLOWER_BROKER_API"] == "http://guest:pw@mq/api/"
    assert variables["INVIGILATOR_DATA_DIR"] == str(Path.cwd() / "here")
    assert "INVIGILATOR_POLICIES_FILE" not in variables
    assert int(variables["FLOWER_PORT"]) > 0


@pytest.mark.parametrize(("ours", "flowers", "used"), [(5999, "6000", "5999"), (None, "6000", "6000")])
def test_flower_has_the_port_that_it_was_given(
    monkeypatch: pytest.MonkeyPatch, ours: int | None, flowers: str, used: str
) -> None:
    monkeypatch.setenv("FLOWER_PORT", flowers)
    assert environment(Settings(_env_file=None, flower_port=ours))["FLOWER_PORT"] == used


def test_a_port_that_is_none_is_not_flowers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWER_PORT", "tcp://10.0.0.1:80")  # by Kubernetes, for a service called flower
    assert int(environment(Settings(_env_file=None))["FLOWER_PORT"]) > 0


def test_the_api_has_the_address_that_it_was_given_or_a_free_one() -> None:
    given = environment(Settings(_env_file=None, web_address="[::1]:1"))
    assert given["INVIGILATOR_WEB_ADDRESS"] == "[::1]:1"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        unset = Settings.model_construct(set(), **dict(Settings(_env_file=None, web_address=address)))
        assert environment(unset)["INVIGILATOR_WEB_ADDRESS"] not in (address, "")


TOKEN = {"lms_token": SecretStr("token"), "web_trusted_proxies": "10.0.0.0/8, fd00::/8"}
OAUTH = {
    "lms_oauth_token_url": "https://id.example.org/token",
    "lms_oauth_client_id": "invigilator",
    "lms_oauth_client_secret": SecretStr("s%40cret"),
    "lms_oauth_scope": "credit reset",
    "web_oidc_issuer": "https://login.example.org",
    "web_oidc_client_id": "invigilator",
    "web_oidc_client_secret": SecretStr("oidc"),
    "web_oidc_scope": "openid groups",
    "web_oidc_roles_claim": "roles",
}


@pytest.mark.parametrize("credentials", [TOKEN, OAUTH], ids=["token", "oauth"])
def test_the_processes_run_with_the_very_same_settings(
    credentials: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Settings(
        _env_file=None,
        database_url=SecretStr("postgresql+psycopg2://u:p%40@h:5/x?sslmode=verify-full&sslrootcert=system"),
        broker_url=SecretStr("rediss://:p%40@h:5/1"),
        data_dir=tmp_path / "data",
        lms_url="https://lms.example.org/api",
        **credentials,
        lms_cert=tmp_path / "cert.pem",
        lms_key=tmp_path / "key.pem",
        lms_headers=SecretStr('{"X-Api-Key": "k"}'),
        lms_proxy=SecretStr("http://me:p%40@proxy:1"),
        smtp_url=SecretStr("smtps://u:p@h"),
        email_from="Exams <exams@example.org>",
        policies_file=tmp_path / "policies.toml",
        templates_dir=tmp_path / "templates",
        command_keys_file=tmp_path / "keys.toml",
        subscriptions_file=tmp_path / "subscriptions.toml",
        instance="second",
        events_keep="90d",
        believe_time_for_s=1000,
        command_shards=3,
        effect_queues="quorum",
        database_pooler="transaction",
        batch_size=7,
        retry_base_s=0.5,
        retry_cap_s=100,
        retry_for_s=1000,
        lease_s=70,
        shard_lease_s=7,
        poll_s=3,
        call_timeout_s=11,
        max_calls=3,
        smtp_max_connections=2,
        credit="off",
        instructor="off",
        flower_broker_api=SecretStr("http://guest:pw@mq/api/"),
        flower_port=5000,
        flower_unauthenticated_api=True,
        web_address="127.0.0.1:8088",
        web_url="https://exams.example.org",
        web_roles="admins=admin",
        web_session_key=SecretStr("k" * 64),
        actor="ada",
        heartbeat_s=6,
        metrics_token=SecretStr("scraper"),
        log_format="json",
        log_level="debug",
        api_tokens_file=tmp_path / "tokens.toml",
        api_rate=7,
        quarantine_max=5,
        quarantine_max_mb=6,
        prune_older_than="90d",
        without_patches=frozenset({"flower-events", "kombu-envelope"}),
    )
    at_default = {
        name for name, field in Settings.model_fields.items() if getattr(given, name) == field.default
    }
    assert at_default == (TOKEN.keys() | OAUTH.keys()) - credentials.keys()
    for name, value in environment(given).items():
        monkeypatch.setenv(name, value)
    assert load() == given


def test_what_is_needed_and_missing_is_named(tmp_path: Path) -> None:
    empty = Settings(_env_file=None, data_dir=tmp_path)
    database_only = empty.model_copy(
        update={"database_url": SecretStr("postgresql+psycopg2://somewhere/else")}
    )

    assert resolve(database_only, broker=False) == database_only
    with pytest.raises(ConfigurationError, match=f"no broker configured.*{tmp_path}"):
        resolve(database_only)
    with pytest.raises(ConfigurationError, match="no database configured"):
        resolve(empty, broker=False)


def test_a_file_of_a_killed_system_is_not_believed(tmp_path: Path) -> None:
    announcement.announce(tmp_path, Engines("postgresql+psycopg2://old", "redis://old"))

    assert find_engines(tmp_path) is None
