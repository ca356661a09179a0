"""Reads secrets from files, as containers are given them: `INVIGILATOR_LMS_TOKEN_FILE` names the file."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from worker.errors import ConfigurationError
from worker.textfiles import NotTextError, read_text

SUFFIX = "_FILE"
"""A variable with this at the end of its name names the file that holds the value of the one without."""


def read_secret_files(variables: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the values that files hold, by the name of the variable that they stand for.

    One line break at the end of a file is no part of the value.

    Parameters:
        variables: what is set, by name.
        names: of the variables that a file may stand for.

    Raises:
        ConfigurationError: both forms are set, or a file cannot be read or is empty. The message names the variable
            and the file, and quotes nothing of the content.
    """
    return {name: _read(variables, name) for name in names if variables.get(f"{name}{SUFFIX}")}


def _read(variables: Mapping[str, str], name: str) -> str:
    if variables.get(name):
        raise ConfigurationError(f"{name} and {name}{SUFFIX} are both set: take one of them away")
    named = variables[f"{name}{SUFFIX}"]
    path = Path(os.path.expanduser(named))  # noqa: PTH111 - pathlib's fails for unknown users
    try:
        secret = read_text(path).removesuffix("\n").removesuffix("\r")
    except NotTextError as error:
        raise ConfigurationError(f"{name}{SUFFIX}: {path.absolute()}: {error}") from None
    except OSError as error:
        raise ConfigurationError(
            f"{name}{SUFFIX}: {path.absolute()} cannot be read: {error.strerror}"
        ) from None
    if not secret:
        raise ConfigurationError(f"{name}{SUFFIX}: {path.absolute()} is empty")
    return secret
