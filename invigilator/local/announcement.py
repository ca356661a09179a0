"""Tells the other processes where the embedded engines listen: a private file in the data folder."""

import json
from dataclasses import asdict
from pathlib import Path

from invigilator.local.private_files import write_private
from worker.engines import FILE, Engines


def announce(data_dir: Path, engines: Engines) -> None:
    """Tell others. Only for the holder of the folder's lock, which is what makes the file true."""
    write_private(data_dir / FILE, json.dumps(asdict(engines)))


def withdraw(data_dir: Path) -> None:
    """Remove what `announce` wrote, or what a killed system left."""
    (data_dir / FILE).unlink(missing_ok=True)
