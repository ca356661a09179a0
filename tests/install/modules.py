"""Run by an environment's own Python: imports every module of ours, and prints which cannot be."""

import json
import pkgutil
import sys
from importlib import import_module

ONLY_FOR_ALEMBIC = "db.migrations."  # runs these as scripts


def _modules() -> list[str]:
    packages = [import_module(name) for name in ("db", "events", "invigilator", "worker")]
    found = (
        one for package in packages for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    )
    return [one.name for one in found if not one.name.startswith(ONLY_FOR_ALEMBIC)]


def _missing_for(name: str) -> str | None:
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        return error.name
    return None


if __name__ == "__main__":
    missing = {name: _missing_for(name) for name in ("celeryconfig", *_modules())}
    json.dump({name: what for name, what in missing.items() if what}, sys.stdout)
