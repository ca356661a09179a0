"""Reads text files that people write: UTF-8, with or without a byte order mark."""

from pathlib import Path


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


def _not_text(lines_before: int) -> NotTextError:
    return NotTextError(f"line {lines_before + 1} is not UTF-8: save the file in that encoding")
