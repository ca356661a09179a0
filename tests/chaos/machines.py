"""Three machines: network namespaces in which our processes run, and which can be cut off.

The engines and the other side stay where they are. A machine reaches them by way of a forwarder at the address of a
bridge. A cut takes the machine's link down: nothing is refused, and nothing is answered.
"""

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.acceptance.harness import PROGRAMS
from tests.chaos.proxy import proxying
from tests.engines import unavailable

MACHINES = 3
WRAPPED = ("invigilator", "celery")
NAMESPACES, LINKS = Path("/run/netns"), Path("/sys/class/net")
OURS = re.compile(r"inv(\d+)(m\d)?")
NEEDED = "network namespaces need root and iproute2"


class Network:
    """Namespaces that are connected by a bridge, each by a link of its own.

    Parameters:
        folder: keeps programs.
        seed: decides which machine is cut off.
        resources: ends what `reached` starts.
    """

    def __init__(self, folder: Path, seed: int, resources: ExitStack) -> None:
        self._chance = random.Random(f"machines {seed}")
        self._resources = resources
        # Beside those of other runs on this computer: names of links have 15 characters at most.
        pid = os.getpid()
        self._bridge = f"inv{pid}"
        self._prefix = f"10.213.{pid % 250 + 1}"
        self.names = [f"{self._bridge}m{machine}" for machine in range(MACHINES)]
        self._address = f"{self._prefix}.1"
        self.programs = [_programs(folder / name, name) for name in self.names]
        """For each machine, the folder of our programs, which run on it."""

    def reached(self, url: str) -> str:
        """The URL of a server of this computer, as the machines reach it."""
        return self._resources.enter_context(proxying(url, host=self._address)).url(url)

    def build(self) -> None:
        """Make everything, and take away what runs have left that were killed."""
        remove_leftovers()
        _ip(f"link add {self._bridge} type bridge")
        _ip(f"addr add {self._address}/24 dev {self._bridge}")
        _ip(f"link set {self._bridge} up")
        for number, name in enumerate(self.names):
            _ip(f"netns add {name}")
            _ip(f"link add {name} type veth peer name eth0 netns {name}")
            _ip(f"link set {name} master {self._bridge}")
            _ip(f"link set {name} up")
            _ip(f"-n {name} addr add {self._prefix}.{number + 10}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")
            _ip(f"-n {name} link set lo up")

    def remove(self) -> None:
        """Take away what there is of it."""
        for name in self.names:
            _ip(f"netns del {name}", check=False)
        _ip(f"link del {self._bridge}", check=False)

    def cut(self, for_s: float) -> None:
        """Cut a machine off for so many seconds."""
        name = self._chance.choice(self.names)
        _ip(f"link set {name} down")
        time.sleep(for_s)
        _ip(f"link set {name} up")


def remove_leftovers() -> None:
    """Take away the namespaces and bridges of runs that have ended. Their names say which process has made them."""
    for name in (path.name for path in NAMESPACES.glob("inv*m*")):
        if _is_of_the_dead(name):
            _ip(f"netns del {name}", check=False)
    for name in (path.name for path in LINKS.glob("inv*")):
        if _is_of_the_dead(name):
            _ip(f"link del {name}", check=False)


def _is_of_the_dead(name: str) -> bool:
    made = OURS.fullmatch(name)
    return made is not None and not psutil.pid_exists(int(made[1]))


@contextmanager
def running_network(folder: Path, seed: int) -> Iterator[Network]:
    """Three machines. Skips on a laptop without namespaces, fails in CI."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        unavailable(NEEDED)
    with ExitStack() as resources:
        network = Network(folder, seed, resources)
        resources.callback(network.remove)
        network.build()
        yield network


def _programs(folder: Path, namespace: str) -> Path:
    """Make our programs such that they run in a namespace."""
    folder.mkdir(parents=True)
    for name in WRAPPED:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec ip netns exec {namespace} {PROGRAMS / name} "$@"\n')
        program.chmod(0o755)
    return folder


def _ip(arguments: str, *, check: bool = True) -> None:
    subprocess.run(["ip", *arguments.split()], check=check, capture_output=True)
