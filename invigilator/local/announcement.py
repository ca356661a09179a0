"""Writes the URLs of the embedded engines to a private file in the data folder, for `worker.engines` to read."""

import json
from dataclasses import asdict
from pathlib import Path

from invigilator.local.private_files import write_private
from worker.engines import FILE, Engines


def announce(data_dir: Path, engines: Engines) -> None:
    """Write the file. Only the holder of the folder's lock may call this: a held lock makes readers trust it."""
    write_private(data_dir / FILE, json.dumps(asdict(engines)))


def withdraw(data_dir: Path) -> None:
    """Remove the file that `announce` wrote, or that a killed system left."""
    (data_dir / FILE).unlink(missing_ok=True)
