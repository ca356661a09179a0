"""The environments, made once for a pytest session."""

import shutil
from pathlib import Path

import pytest

from tests.install.environments import NOT_THE_SOURCE, ROOT, Environment, build_wheel


@pytest.fixture(scope="module", autouse=True)
def few_authorities() -> None:
    """The system's authorities count here: uv asks a registry."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the checkout, which stays as it is.

    It comes by way of the source distribution: what is lost on either way is missed by the tests.
    """
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=NOT_THE_SOURCE)
    return build_wheel(folder / "source", folder)


@pytest.fixture(scope="session")
def production(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What production installs: the wheel without any extra."""
    environment = Environment.create(tmp_path_factory.mktemp("production"))
    environment.install(str(wheel))
    return environment


@pytest.fixture(scope="session")
def local(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What a look at it on one machine needs: the extra `local`, without Flower."""
    environment = Environment.create(tmp_path_factory.mktemp("local"))
    environment.install(f"{wheel}[local]")
    return environment
