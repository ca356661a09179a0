"""The dependencies: pyproject.toml names every distribution that a part imports, for that part."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("db", "events", "invigilator", "worker")
FOR_LOCAL = ("invigilator/cli/demo.py", "invigilator/demo/", "invigilator/local/")
FOR_FLOWER = ("worker/celery/flower.py", "worker/celery/flower_command.py", "worker/patches.py")
FOR_WEB = ("invigilator/web/",)
FOR_OTEL = ("worker/otel.py",)
FOR_OPENEDX = ("worker/feeds/openedx.py", "worker/feeds/openedx_data.py")
FOR_DEVELOPERS = ("events/django/", "invigilator/asyncapi/__main__.py")
DISTRIBUTIONS: dict[str, list[str]] = dict(packages_distributions()) | {
    # Many distributions share this name. These are the ones that are imported.
    "opentelemetry": ["opentelemetry-api", "opentelemetry-exporter-otlp-proto-http", "opentelemetry-sdk"],
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = tomllib.loads((ROOT / "events" / "pyproject.toml").read_text())["project"]
FOR_CLIENTS_EXTRAS = {
    ("events/redis_server.py", "events/redis_transport.py"): "redis",
    ("events/client.py",): "http",
    ("events/django/",): "django",
}


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=\[; ]", one, maxsplit=1)[0]) for one in requirements}


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def imported(file: Path) -> Iterator[str]:
    """Return the top-level names that a module imports, also inside its functions."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        match node:
            case ast.Import():
                yield from (one.name.split(".")[0] for one in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]


def foreign(file: Path) -> set[str]:
    """Return the distributions that a module imports."""
    found = set(imported(file)) - set(sys.stdlib_module_names) - {*PACKAGES, "celeryconfig"}
    return {normal(one) for name in found for one in DISTRIBUTIONS[name]}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_asked_for(package: str) -> None:
    extras = {
        FOR_LOCAL: "local",
        FOR_FLOWER: "flower",
        FOR_WEB: "web",
        FOR_OPENEDX: "openedx",
        FOR_OTEL: "otel",
        FOR_DEVELOPERS: "dev",
    }
    check(package, PROJECT, extras)


def test_the_client_asks_for_every_import() -> None:
    check("events", CLIENT, FOR_CLIENTS_EXTRAS)


def check(package: str, project: dict[str, Any], extras: Mapping[tuple[str, ...], str]) -> None:
    everywhere = names(project["dependencies"])
    for file in (ROOT / package).rglob("*.py"):
        module = file.relative_to(ROOT).as_posix()
        asked = [project["optional-dependencies"][one] for of, one in extras.items() if module.startswith(of)]
        assert foreign(file) <= everywhere.union(*map(names, asked)), module


def test_every_dependency_is_pinned() -> None:
    pinned = {normal(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    extras = PROJECT["optional-dependencies"]
    asked = names([*PROJECT["dependencies"], *(one for wanted in extras.values() for one in wanted)])
    assert asked - {"invigilator"} <= pinned
