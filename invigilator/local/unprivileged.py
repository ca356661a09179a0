"""Lets root run PostgreSQL, which refuses root, in a user namespace or as an unprivileged user.

Nothing outside the data folder is created, chmod-ed or chown-ed (docs/decisions/0002).
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from worker.errors import ConfigurationError

# The probe writes a file, as PostgreSQL will. `test -w` checks the real user id and does not see the capability.
_PROBE = 'test "$(id -u)" != 0 && : > "$1/probe" && rm "$1/probe" && exec "$0" --version'


def command_prefix(binary: Path, folder: Path) -> list[str]:
    """Return the words to put before a PostgreSQL command line so that it runs as an unprivileged user.

    The list is empty for an ordinary user with a name. For root, and for a user id without a name, the first way
    that works on this machine is chosen, and the user that PostgreSQL will run as becomes the owner of `folder`.

    Parameters:
        binary: the program that will run.
        folder: the folder that the program will work in. It must exist.

    Raises:
        ConfigurationError: neither way works on this machine.
    """
    if os.geteuid() != 0 and _is_named(os.geteuid()):
        return []
    user = _unprivileged_user()
    for prefix, owner in ((_namespace(user), os.geteuid()), (_capability(user), user.pw_uid)):
        if prefix and _works(prefix, binary, folder):
            _give(folder, owner)
            return prefix
    raise ConfigurationError(
        "PostgreSQL refuses to run as this user (root, or a user id without a name), and this machine allows "
        "neither user namespaces nor capabilities: run Invigilator as an ordinary user, or set "
        "INVIGILATOR_DATABASE_URL to a PostgreSQL of your own"
    )


def _is_named(uid: int) -> bool:
    # PostgreSQL looks up the name of its user. A container that was started with a bare user id has no name.
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _unprivileged_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        return next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)


def _namespace(user: pwd.struct_passwd) -> list[str]:
    """Return the prefix for a user namespace that shows this process as `user`. Files still see the real user."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    return [unshare, "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--"]


def _capability(user: pwd.struct_passwd) -> list[str]:
    """Return the prefix that switches to `user` and keeps only the capability to pass through closed folders."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    # The capability takes effect at the next exec. The next program must therefore be in an open folder: the shell.
    return [setpriv, *identity, *capability, "--", "/bin/sh", "-c", 'exec "$0" "$@"']


def _works(prefix: list[str], binary: Path, folder: Path) -> bool:
    command = [*prefix, "/bin/sh", "-c", _PROBE, str(binary), str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _give(folder: Path, owner: int) -> None:
    # The owner differs only after a move between machines on which different ways work.
    if folder.stat().st_uid == owner:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, -1, follow_symlinks=False)
