"""The console in Chromium: by keyboard, without scripts, on a phone, from right to left, and for screen readers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine

from tests import engines
from tests.chromium import running_chromium
from tests.engines import unavailable
from tests.integration.web.console.filling import CAUSE, LONG, MANY, RIGHT_TO_LEFT, fill, served
from tests.programs import run_program

AXE = "axe-core@4.14.1"
PHONE = {"width": 360, "height": 740}
PAGES = (
    "",
    f"attempt?exam_id={LONG}&user_id={RIGHT_TO_LEFT}",
    f"attempts?exam_id={LONG}",
    "audit",
    f"cause?id={CAUSE}",
    "causes",
    "effects?exam_id=A",
    "command?source=/tests&id=submit",
    "commands",
    "effects?state=failed",
    "effects?user_id=nobody",
    f"learner?user_id={RIGHT_TO_LEFT}",
    "quarantine",
    "quarantined?id=1",
    "search",
    "search?q=nothing",
    "webhook?name=acme",
    "webhooks",
    f"acts/retry?cause={CAUSE}",
    "pause?kind=set_credit_status",
    "nowhere",
)


@pytest.fixture(scope="module")
def engine(postgres_url: str) -> Iterator[Engine]:
    """On a database with much to look at."""
    with engines.fresh_database(postgres_url) as url, engines.disposed(url) as engine:
        fill(engine)
        yield engine


@pytest.fixture(scope="module")
def home(engine: Engine) -> Iterator[str]:
    """The address of the console."""
    with served(engine) as home:
        yield home


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program that looks for what people with a screen reader would miss."""
    folder: Path = tmp_path_factory.mktemp("axe")
    install = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", AXE)
    installed: subprocess.CompletedProcess[str] = run_program(*install, folder=folder)
    if installed.returncode != 0:
        unavailable(f"npm install failed: {installed.stderr[-500:]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


def findings(page: Page, axe: str) -> list[str]:
    """What axe finds on a page."""
    page.wait_for_load_state()  # a click waits only until the next page begins
    page.evaluate(axe)
    return found(page, {})


def colours_found(page: Page) -> list[str]:
    """What axe finds of the colours, on a page where it was before. Between dark and light nothing else differs."""
    return found(page, {"runOnly": ["color-contrast"]})


def found(page: Page, rules: dict[str, list[str]]) -> list[str]:
    said: dict[str, Any] = page.evaluate("rules => axe.run(rules)", rules)
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in said["violations"]]


def test_axe_finds_nothing_and_nothing_comes_from_elsewhere(browser: Browser, home: str, axe: str) -> None:
    page = browser.new_page(color_scheme="light")
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    for path in PAGES:
        page.emulate_media(color_scheme="light")
        page.goto(home + path)
        assert findings(page, axe) == [], path
        page.emulate_media(color_scheme="dark")
        assert colours_found(page) == [], path
    page.close()
    assert all(url.startswith(home) for url in asked)
    # The page that is not there is one that a browser complains of.
    assert [one for one in complaints if "404" not in one] == []


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, home: str) -> None:
    page = browser.new_page(viewport=PHONE)  # type: ignore[arg-type]
    for path in PAGES:
        page.goto(home + path)
        for direction in ("ltr", "rtl"):
            page.evaluate("direction => document.documentElement.dir = direction", direction)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"], (path, direction)
    page.close()


def test_on_a_phone_a_row_is_a_card_that_shows_all_its_columns(browser: Browser, home: str) -> None:
    page = browser.new_page(viewport=PHONE)  # type: ignore[arg-type]
    page.goto(f"{home}causes")
    cells = page.locator(".causes tbody tr >> td")
    assert cells.count() == 7
    for cell in cells.all():
        box = cell.bounding_box()
        assert box is not None
        assert 0 <= box["x"] < box["x"] + box["width"] <= PHONE["width"]
        label = cell.evaluate("one => getComputedStyle(one, '::before').content")
        assert label == f'"{cell.get_attribute("data-label")}"'
    page.close()


def test_by_keyboard_alone_somebody_pauses_a_kind(browser: Browser, home: str) -> None:
    page = browser.new_page()
    page.goto(home)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to(page, "Pause send_status_email …")
    page.keyboard.press("Enter")
    page.wait_for_url("**/pause?kind=send_status_email")
    # The reason is asked for at once
    assert page.evaluate("document.activeElement.id") == "reason"
    page.keyboard.type("the mail server is moved")
    tab_to(page, "Pause send_status_email")
    page.keyboard.press("Enter")
    page.wait_for_url(home)
    assert "the mail server is moved" in page.inner_text("main")
    page.close()


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.innerText"))


def tab_to(page: Page, text: str) -> None:
    """Press Tab until an element has the focus. Each must show that it has it."""
    for _ in range(200):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if focused(page) == text:
            return
    raise AssertionError(f"{text} is not reached by Tab")


def test_without_scripts_all_that_match_are_cancelled(browser: Browser, home: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{home}effects")
    page.check("input[value=pending]")
    page.fill("#f-user_id", "42")
    page.click("text=Show")
    page.click("text=Cancel all that match …")
    page.fill("textarea", "they were sent by hand")
    page.click("main button.primary")
    # The page loads itself again.
    page.wait_for_selector(".state.finished")
    assert "1 of 1 is cancelled." in page.inner_text("main")
    context.close()


def test_ten_thousand_are_retried_while_somebody_watches(browser: Browser, home: str, axe: str) -> None:
    page = browser.new_page()
    page.goto(f"{home}cause?id={CAUSE}")
    page.click("text=Retry all that have failed …")
    assert f"Retry {MANY:,} effects that match" in page.inner_text("main")
    page.fill("textarea", "the credit service is back")
    page.click("main button.primary")
    page.wait_for_selector(".state.finished", timeout=120_000)  # scripts replace a part of the page
    assert f"{MANY:,} of {MANY:,} are to be tried again." in page.inner_text("main")
    assert findings(page, axe) == []
    page.click("text=The effects of this act")
    assert findings(page, axe) == []
    assert "step 1 of" in page.inner_text("h1")
    page.close()


def test_on_paper_there_is_the_story_and_no_button(browser: Browser, home: str) -> None:
    page = browser.new_page()
    page.goto(f"{home}learner?user_id=42")
    page.emulate_media(media="print")
    assert page.is_visible(".timeline")
    for hidden in ("header", ".actions", "footer"):
        assert not page.is_visible(hidden)
    page.close()


def test_the_page_to_print_is_a_click_away_and_the_browser_takes_its_style(
    browser: Browser, home: str
) -> None:
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(f"{home}learner?user_id=42")
    page.click("text=Page to print")
    assert page.inner_text("h1") == "Learner 42"
    assert page.evaluate("getComputedStyle(document.querySelector('dl')).display") == "grid"
    assert not page.is_visible("header")
    assert refused == []
    page.close()
