"""Takes the pictures of docs/images: `make screenshots`."""

import sys
from pathlib import Path

from sqlalchemy import text

from tests import engines
from tests.chromium import running_chromium
from tests.integration.web.console.filling import CAUSE, fill, served

WIDE = {"width": 1280, "height": 900}
SIGNS_OF_LIFE = "UPDATE processes SET seen_at = now() WHERE role <> 'credit'"
PHONE = {"width": 390, "height": 844}


def take(folder: Path) -> None:
    """Write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        engines.running_postgres() as server,
        engines.running_valkey() as broker,
        engines.fresh_database(server.url) as url,
        engines.disposed(url) as engine,
        served(engine, broker_url=broker.url) as home,
        running_chromium() as browser,
    ):
        fill(engine)
        for name, path, scheme, size in (
            ("console-overview", "", "light", WIDE),
            ("console-overview-dark", "", "dark", WIDE),
            ("console-phone", "", "dark", PHONE),
            ("console-cause", f"cause?id={CAUSE}", "light", WIDE),
            ("console-effects", "effects?state=failed", "light", WIDE),
            ("console-retry", f"acts/retry?cause={CAUSE}", "light", WIDE),
            ("console-learner", "learner?user_id=42", "light", WIDE),
        ):
            with engine.begin() as connection:
                connection.execute(text(SIGNS_OF_LIFE))
            page = browser.new_page(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
            page.goto(home + path)
            page.screenshot(path=folder / f"{name}.png", full_page=size is WIDE and not path)
            page.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]))
