"""Writes files of the data folder that only their owner may read."""

import os
from pathlib import Path


def write_private(file: Path, text: str) -> None:
    """Replace `file` atomically by one that holds `text`, has mode 0600, and is flushed to disk."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())
    draft.replace(file)
