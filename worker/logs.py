"""Logs: one line for each thing that happens, as JSON or readable, with the time in UTC.

An event is a constant phrase, and what it is about are fields. docs/observability.md lists all of them. Every
process calls `configure` when it has its settings. Until then, and in the commands of a person, warnings go to
standard error.
"""

import atexit
import functools
import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from logging.handlers import WatchedFileHandler
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.stdlib import ProcessorFormatter, add_logger_name
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Format = Literal["json", "readable"]
Level = Literal["debug", "info", "warning", "error"]

OF_UP: Format = "readable"
"""The format under `invigilator up` if no setting says another: each line begins with the name of its process."""

ROOMS = ("events", "db", "worker", "invigilator")

_QUIET = {
    "httpx": logging.WARNING,  # a line for each request, with the ids in its URL
    "alembic.runtime.migration": logging.WARNING,  # two lines for each comparison of the schema
    # A line for each task that has arrived or ended, of which our own line says more.
    "celery.worker.strategy": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    # A line for each time that a collector does not answer. The one for the batch that is given up is enough.
    "opentelemetry.exporter.otlp.proto.http.trace_exporter": logging.ERROR,
}


MANY_LEFT = 10_000
"""So many lines are left to the thread that writes. Then whoever logs waits for it, and so for a slow reader."""


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module. Its methods take a constant event, and fields.

    Example:
        >>> logger = get_logger(__name__)
        >>> logger.info("shard taken", shard=0, epoch=7)
    """
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


def default_format(stream: TextIO) -> Format:
    """Return the format where no setting says which: readable on a terminal, JSON elsewhere."""
    return "readable" if stream.isatty() else "json"


def configure(format: Format | None, level: Level, file: str | None = None) -> None:  # noqa: A002 - the setting's name
    """Write what this process and its libraries log to standard error.

    Of the libraries nothing below INFO is written, because at DEBUG some of them log headers and bodies.

    Parameters:
        format: of a line. None means readable on a terminal, and JSON elsewhere.
        level: the lowest that is written.
        file: the path of a file to write to instead. It may be moved away; it is then made anew.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    handler: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
    if file:
        handler = WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    chosen = format or ("json" if file else default_format(sys.stderr))
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[add_logger_name, *_SHARED],
            processors=[ProcessorFormatter.remove_processors_meta, *_renderers(chosen)],
        )
    )
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler])
    for room in ROOMS:
        logging.getLogger(room).setLevel(number)
    for name, lowest in _QUIET.items():
        logging.getLogger(name).setLevel(lowest)
    writer = Writer(handler)
    atexit.register(writer.finish)
    structlog.configure(
        processors=[add_logger_name, *_SHARED, _flatten, *_renderers(chosen)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=partial(_Lines, writer),
        cache_logger_on_first_use=True,
    )


class Writer:
    """Writes lines where a handler writes its own. Safe to share between threads.

    Threads that log at the same time need not wait for each other: whoever writes takes along what the others have
    left, in one piece. A piece that cannot be written, because the disk is full for example, is lost: it may not
    fail the work that it tells of.
    """

    def __init__(self, handler: logging.StreamHandler[Any]) -> None:
        self._handler = handler
        self._left: deque[str] = deque()
        # What runs while a line is written may log, such as a signal's handler.
        self._writing = threading.RLock()

    def leave(self, line: str) -> None:
        """Write a line, or leave it to the thread that is writing."""
        self._left.append(line)
        if len(self._left) > MANY_LEFT:
            self.finish()
        else:
            self._take_along()

    def write(self, line: str) -> None:
        """Write a line, and return when it is written."""
        self._left.append(line)
        self.finish()

    def finish(self) -> None:
        """Return when all that was left is written."""
        with self._writing:
            self._write_all()
        self._take_along()

    def _take_along(self) -> None:
        while self._left and self._writing.acquire(blocking=False):
            try:
                self._write_all()
            finally:
                self._writing.release()

    def _write_all(self) -> None:
        lines: list[str] = []
        with suppress(IndexError):  # whatever interrupts this thread may have taken some
            while True:
                lines.append(self._left.popleft())
        self._handler.acquire()
        try:
            _stream(self._handler).write("".join(f"{line}\n" for line in lines))
            self._handler.flush()
        except (OSError, ValueError):  # a ValueError: the stream is closed
            pass
        finally:
            self._handler.release()


def _stream(handler: logging.StreamHandler[Any]) -> Any:
    if isinstance(handler, WatchedFileHandler):
        handler.reopenIfNeeded()
        if handler.stream is None:  # it could not be opened the last time
            handler.stream = handler._open()  # noqa: SLF001 - as the handler itself does
    return handler.stream


class _Lines:
    """The logger of a name. A record of each line would take more time than all the rest of it."""

    def __init__(self, writer: Writer, name: str) -> None:
        self.name = name
        self._writer = writer

    def msg(self, line: str) -> None:
        """Write a line of which there may be many."""
        self._writer.leave(line)

    def warning(self, line: str) -> None:
        """Write a line that is written when this returns, because the process may be about to end."""
        self._writer.write(line)

    debug = info = msg
    error = critical = warning


def _renderers(format: Format) -> Sequence[Processor]:  # noqa: A002
    if format == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_in_ascii)]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(),
        repr_native_str=True,  # no id can forge a line, or send a terminal a control character
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [console]


def _in_ascii(fields: EventDict, default: Callable[[Any], Any]) -> str:
    # orjson takes a sixth of the time of json. It writes no escapes, and refuses lone surrogates.
    try:
        return orjson.dumps(fields, default=default).decode("ascii")
    except (TypeError, UnicodeDecodeError):
        return json.dumps(fields, default=default)


def _flatten(_logger: WrappedLogger, _method: str, fields: EventDict) -> EventDict:
    """Leave out what is None, and turn what is neither a number nor text, such as a UUID, into text."""
    return {
        name: value if type(value) in _FLAT else str(value)
        for name, value in fields.items()
        if value is not None
    }


_FLAT = (str, int, float, bool)


def _render_by_stream(logger: WrappedLogger, method: str, fields: EventDict) -> Any:
    shown: Any = fields
    for render in _renderers(default_format(sys.stderr)):
        shown = render(logger, method, shown)
    return shown


def _print_logger(*_: object) -> structlog.PrintLogger:
    return structlog.PrintLogger(sys.stderr)


_SHARED: list[Processor] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

structlog.configure(
    processors=[*_SHARED, _flatten, _render_by_stream],
    wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    logger_factory=_print_logger,
)

_logger = get_logger(__name__)


@functools.cache
def warn_once(event: str, **fields: Hashable) -> None:
    """Log a warning the first time that this process has this event with these fields. Later calls do nothing."""
    _logger.warning(event, **fields)
