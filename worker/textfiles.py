"""Text files that people write: UTF-8, with or without a byte order mark."""

from pathlib import Path


class NotTextError(ValueError):
    """A file is not UTF-8. Its text says where and what to do, and quotes nothing of the file."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        NotTextError: it is not UTF-8; names the line.
        OSError: it cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_text(error.object[: error.start].count(b"\n")) from None
    if "\0" in text:  # no byte of it is wrong, and yet it is UTF-16 or no text at all
        raise _not_text(text[: text.index("\0")].count("\n"))
    return text


def _not_text(lines_before: int) -> NotTextError:
    return NotTextError(f"line {lines_before + 1} is not UTF-8: save the file in that encoding")
