"""Starts our programs without importing the libraries each time, by the fork server of `invigilator up`.

A stack of four processes spends most of its CPU time on imports. The tests also run modules, have crashes await a
program, and wait for its end. `worker.app` and everything that reads the environment at import are imported by each
process.
"""

import atexit
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from invigilator.local.forkserver import PRELOADED, Forked, ForkServer, Program, prepare, scripts, serve
from tests.chaos.points import Crash, install

__all__ = ["Crashing", "ForkServer", "Forked", "Program", "fork_server", "run_into", "run_to_end"]

MORE_PRELOADED = ("db.migrate", "invigilator.cli.status", "invigilator.local.up", "worker.health.judgement")


@dataclass(frozen=True, slots=True)
class Crashing(Program):
    """A program that a crash awaits.

    Parameters:
        crash: what `Crash.arguments` makes, or nothing.
    """

    crash: Sequence[str] = ()


@cache
def fork_server() -> ForkServer:
    """The one of this process. Its programs are console scripts of this environment, or modules."""
    server = ForkServer(__name__)
    atexit.register(server.close)
    return server


def run_to_end(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a console script of this environment, as `subprocess.run` does.

    Raises:
        subprocess.TimeoutExpired: it has not come to its end. It is killed.
    """
    with tempfile.TemporaryFile("w+") as output:
        ran = run_into(output.fileno(), arguments, environment, folder, timeout_s)
        output.seek(0)
        return subprocess.CompletedProcess(arguments, ran.returncode, output.read(), ran.stderr)


def run_into(
    output: int, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run as `run_to_end` does, with this descriptor for its standard output."""
    with tempfile.TemporaryFile("w+") as errors:
        program = Program(arguments, environment, str(folder))
        process = fork_server().start(program, output, errors.fileno())
        try:
            status = process.wait(timeout_s)
        finally:
            process.send_signal(signal.SIGKILL)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, status, None, errors.read())


def main() -> None:
    """Serve the programs of the tests."""
    known = scripts()

    def become(order: Mapping[str, Any]) -> NoReturn:
        program = Crashing(**order)
        prepare(program)
        if program.crash:
            crash, marker = program.crash
            install(Crash.read(crash), Path(marker))
        name = program.arguments[0]
        if name in known:
            sys.exit(known[name].load()())
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        sys.exit()

    serve((*PRELOADED, *MORE_PRELOADED), become)


if __name__ == "__main__":
    main()
