"""Checks whether the optional dependencies of an extra are installed (`pip install 'invigilator[NAME]'`)."""

from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement

from worker.errors import ConfigurationError

LOCAL = "local"
FLOWER = "flower"
WEB = "web"
OPENEDX = "openedx"
OTEL = "otel"


def missing(extra: str) -> list[str]:
    """Return the names of the distributions that an extra requires and that are not installed.

    Parameters:
        extra: the name of an extra of `pyproject.toml`.
    """
    wanted = map(Requirement, requires("invigilator") or ())
    return [one.name for one in wanted if _belongs(one, extra) and not _is_installed(one.name)]


def need(extra: str, what: str) -> None:
    """Make sure that an extra is installed.

    Parameters:
        extra: the name of an extra of `pyproject.toml`.
        what: the part of Invigilator that needs the extra, for the message.

    Raises:
        ConfigurationError: a distribution is missing. The message says how to install the extra.
    """
    absent = missing(extra)
    if absent:
        raise ConfigurationError(
            f"{what} needs the extra [{extra}] ({', '.join(absent)} missing): {how_to_install(extra)}"
        )


def how_to_install(extra: str) -> str:
    """Return the pip command that installs an extra."""
    return f"pip install 'invigilator[{extra}]'"


def _belongs(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
