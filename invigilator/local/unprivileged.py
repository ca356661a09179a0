"""PostgreSQL refuses to run as root. Run it so that it does not see that it does.

Nothing outside the data folder is created, chmod-ed or chown-ed. See `docs/decisions/0002`.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from worker.errors import ConfigurationError

# Does what PostgreSQL will do: `test -w` would ask about the real user and not see the capability.
_PROBE = 'test "$(id -u)" != 0 && : > "$1/probe" && rm "$1/probe" && exec "$0" --version'


def command_prefix(binary: Path, folder: Path) -> list[str]:
    """The words to put before a PostgreSQL command line that works in `folder`, which must exist.

    `folder` is given to the user that the command will run as, if that is another one.

    Raises:
        ConfigurationError: this machine allows none of the ways.
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
    # PostgreSQL looks its user up, and a container started with a bare number has none.
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
    """A user namespace in which we are called `user`; outside, and to the files, we are who we were."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    return [unshare, "--user", f"--map-user={user.pw_uid}", f"--map-group={user.pw_gid}", "--"]


def _capability(user: pwd.struct_passwd) -> list[str]:
    """Really become `user`, keeping only root's right to pass through closed folders."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    # The right takes effect with the next program, so that one must be where everybody may go: the shell.
    return [setpriv, *identity, *capability, "--", "/bin/sh", "-c", 'exec "$0" "$@"']


def _works(prefix: list[str], binary: Path, folder: Path) -> bool:
    command = [*prefix, "/bin/sh", "-c", _PROBE, str(binary), str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _give(folder: Path, owner: int) -> None:
    # Usually already so; not after a move between machines that allow different ways.
    if folder.stat().st_uid == owner:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, -1, follow_symlinks=False)
