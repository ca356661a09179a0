"""Chromium that a test drives, with or without scripts."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.browser import NAMES
from tests.engines import unavailable

OPTIONS = [
    "--no-sandbox",  # CI is root, and Chromium's sandbox refuses that
    "--disable-gpu",
    "--disable-dev-shm-usage",
]


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Start the system's Chromium. While it runs, this thread has an event loop."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        unavailable(f"no browser: install one of {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()
