"""The environments, made once for a pytest session."""

from pathlib import Path

import pytest

from tests.install.environments import Environment, build_source_distribution


@pytest.fixture(scope="module", autouse=True)
def few_authorities() -> None:
    """The system's authorities count here: pip asks a registry."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, by way of the source distribution: what is lost on either way is missed by the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    builder = Environment.create(folder / "builder")
    builder.install("--no-compile", "setuptools")
    return builder.build_wheel(build_source_distribution(builder, folder), folder)


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
    environment.install("--no-compile", f"{wheel}[local]")
    return environment
