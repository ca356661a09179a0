"""The parts of Invigilator that are installed on demand: `pip install 'invigilator[NAME]'`."""

from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement

from worker.errors import ConfigurationError

LOCAL = "local"
FLOWER = "flower"


def missing(extra: str) -> list[str]:
    """The names of the distributions that an extra asks for and that are not installed.

    Parameters:
        extra: one of those of `pyproject.toml`.
    """
    wanted = map(Requirement, requires("invigilator") or ())
    return [one.name for one in wanted if _belongs(one, extra) and not _is_installed(one.name)]


def need(extra: str, what: str) -> None:
    """Make sure that an extra is installed.

    Parameters:
        what: needs it, as a person knows it.

    Raises:
        ConfigurationError: a part of it is missing; says how to install it.
    """
    absent = missing(extra)
    if absent:
        raise ConfigurationError(
            f"{what} needs the extra [{extra}] ({', '.join(absent)} missing): {how_to_install(extra)}"
        )


def how_to_install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'invigilator[{extra}]'"


def _belongs(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
