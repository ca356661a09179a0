"""Reads text files that people write: UTF-8, with or without a byte order mark."""

import tomllib
from pathlib import Path
from typing import Any

from worker.errors import ConfigurationError


class NotTextError(ValueError):
    """A file is not UTF-8. The message names the line and what to do, and quotes nothing of the file."""


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        NotTextError: the file is not UTF-8.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(error.object[: error.start].count(b"\n")) from None
    if "\0" in text:  # NUL is valid UTF-8, but a file that contains it is UTF-16 or no text
        raise _not_text(text[: text.index("\0")].count("\n"))
    return text


def read_toml(path: Path, name: str) -> dict[str, Any]:
    """Return the document of a TOML file that holds no secrets outside of its values.

    Parameters:
        name: what the file is, for the message.

    Raises:
        ConfigurationError: the file cannot be read, or is no TOML. The text is one line.
    """
    try:
        return tomllib.loads(read_text(path))
    except OSError as error:
        raise ConfigurationError(f"{name} {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, NotTextError, RecursionError) as error:
        raise ConfigurationError(f"{name} {path}: is no TOML: {error}") from None


def _not_text(lines_before: int) -> NotTextError:
    return NotTextError(f"line {lines_before + 1} is not UTF-8: save the file in that encoding")
