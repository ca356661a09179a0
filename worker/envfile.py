"""Reads the `.env` file. Every line counts: one that cannot be read is an error, and values are taken literally."""

import io
from collections.abc import Iterator
from pathlib import Path

# Only the parser of python-dotenv is used. Its public functions skip lines that are no assignment, and expand
# `${…}`, which would change a password that contains it. (Seen with python-dotenv 1.2.4.)
from dotenv.parser import Binding, parse_stream

from worker.errors import ConfigurationError
from worker.logs import warn_once
from worker.textfiles import NotTextError, read_text


def read_env_file(path: Path, prefix: str) -> dict[str, str]:
    """Return the variables that a file sets, by name in capitals. The last assignment of a name wins.

    Parameters:
        path: the file.
        prefix: the prefix of Invigilator's own variables, in capitals.

    Raises:
        ConfigurationError: the file or one of its lines cannot be read. The message names the file and the line,
            and quotes no value, because a value may be a secret.
    """
    variables: dict[str, str] = {}
    for line, name, value in _assignments(path, prefix):
        if name in variables and name.startswith(prefix):
            warn_once(
                "a setting is set more than once",
                setting=name,
                file=str(path.absolute()),
                line=line,
                hint="the last time counts",
            )
        variables[name] = value
    return variables


def _assignments(path: Path, prefix: str) -> Iterator[tuple[int, str, str]]:
    for binding in parse_stream(io.StringIO(_read(path, prefix))):
        problem = _problem(binding, prefix)
        if problem:
            raise ConfigurationError(f"{path.absolute()}: line {_line(binding)} {problem}")
        if binding.key is not None and binding.value is not None:
            yield _line(binding), binding.key.upper(), binding.value


def _read(path: Path, prefix: str) -> str:
    try:
        return read_text(path)
    except NotTextError as error:
        raise ConfigurationError(f"{path.absolute()}: {error}") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path.absolute()} cannot be read: {error.strerror}; {prefix}ENV_FILE names the file of settings, "
            "or says that there is none when it is empty"
        ) from None


def _line(binding: Binding) -> int:
    """Return the line number of the assignment itself. A binding also contains the empty lines before it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _problem(binding: Binding, prefix: str) -> str | None:
    if binding.error:
        return "is no assignment; write NAME=value, with special characters in single quotes, or # before a comment"
    if binding.value is None and (binding.key or "").upper().startswith(prefix):
        return "has no value; write NAME=value"
    _, *more = binding.original.string.strip().splitlines() or [""]
    if prefix in "".join(more).upper():
        return "begins a value that goes on over the next setting; a quote is missing"
    return None
