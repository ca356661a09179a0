"""Running `invigilator` inside a test's own process."""

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from invigilator.cli.main import main


@dataclass(frozen=True)
class Ran:
    """How a command ended and what it printed."""

    status: int
    out: str
    err: str
    """Without the lines of the log."""
    log: Sequence[Any] = ()
    """The lines of the log, of a command that acts."""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class CommandLine:
    """Calls `invigilator`."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Ran:
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        before = structlog.get_config()
        try:
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
        finally:
            structlog.configure(**before)
        printed = self.capsys.readouterr()
        assert isinstance(ended.value.code, int)
        lines = printed.err.splitlines(keepends=True)
        log = [json.loads(line) for line in lines if line.startswith("{")]
        err = "".join(line for line in lines if not line.startswith("{"))
        return Ran(ended.value.code, printed.out, err, log)
