"""Chromium without a screen, which loads a page and says what it made of it, or prints it."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

from tests.engines import unavailable

NAMES = ("chromium", "chromium-browser", "google-chrome")
LOAD_FOR_S = 120
ANSWER = re.compile(r'<pre id="answer">(.*?)</pre>', re.DOTALL)


def answer_of(page: Path) -> Any:
    """Load a page, and return the JSON that its script has written into `<pre id="answer">`."""
    run = _load(page, "--virtual-time-budget=10000", "--dump-dom")
    answer = ANSWER.search(run.stdout)
    assert answer is not None, run.stderr
    return json.loads(unescape(answer[1]))


def printed(page: Path) -> Path:
    """Print a page, and return the file of PDF."""
    file = page.with_suffix(".pdf")
    _load(page, "--no-pdf-header-footer", f"--print-to-pdf={file}")
    return file


def _load(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        unavailable(f"no browser: install one of {', '.join(NAMES)}")
    always = [
        "--headless",
        "--no-sandbox",  # CI is root, and Chromium's sandbox refuses that
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={page.parent / 'profile'}",
    ]
    command = [program, *always, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, timeout=LOAD_FOR_S, check=True, text=True)
