"""Measures CPU seconds and memory of process trees, by name."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psutil

MEGABYTE = 1024 * 1024

Roots = Mapping[str, Sequence[int]]
"""By name: the pids of the roots of its process trees."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The CPU seconds used up to a moment."""

    at: float
    cpu: Mapping[str, float]
    machine_busy: float
    machine_stolen: float

    def since(self, before: "Reading") -> "Usage":
        """Return what was used between two readings."""
        return Usage(
            wall_s=self.at - before.at,
            cpu_s={name: max(0.0, seconds - before.cpu[name]) for name, seconds in self.cpu.items()},
            machine_busy_s=self.machine_busy - before.machine_busy,
            machine_stolen_s=self.machine_stolen - before.machine_stolen,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """The CPU seconds used in a period.

    `machine_busy_s` counts every process on the machine, measured or not. `machine_stolen_s` is the time that the
    host gave to other virtual machines.
    """

    wall_s: float
    cpu_s: Mapping[str, float]
    machine_busy_s: float
    machine_stolen_s: float

    @property
    def total_cpu_s(self) -> float:
        """The CPU seconds of all names together."""
        return sum(self.cpu_s.values())

    def figures(self, unit: str, number: float) -> dict[str, float]:
        """Return CPU milliseconds per unit, in total and by name, and the number of busy CPUs.

        `cpus.others` is the part of the benchmark itself and of all other processes on the machine.

        Parameters:
            unit: the name of the unit, such as `transition`.
            number: how many units were done.
        """
        per_unit = {name: 1000 * seconds / number for name, seconds in self.cpu_s.items()}
        return {
            f"cpu_ms_per_{unit}": 1000 * self.total_cpu_s / number,
            **{f"cpu_ms_per_{unit}.{name}": value for name, value in per_unit.items()},
            **{f"cpus.{name}": seconds / self.wall_s for name, seconds in self.cpu_s.items()},
            "cpus.machine": self.machine_busy_s / self.wall_s,
            "cpus.others": max(0.0, self.machine_busy_s - self.total_cpu_s) / self.wall_s,
            "cpus.stolen": self.machine_stolen_s / self.wall_s,
        }


class Meter:
    """Measures the process trees of `roots`.

    Parameters:
        roots: the process trees by name.
        ignored: pids in the trees that serve the measurement, such as the backend of our own connection.
    """

    def __init__(self, roots: Roots, ignored: Collection[int] = ()) -> None:
        self._roots = roots
        self._ignored = frozenset(ignored)

    def read(self) -> Reading:
        """Return the CPU seconds used so far."""
        machine = psutil.cpu_times()
        return Reading(
            at=time.perf_counter(),
            cpu={name: sum(map(self._tree_cpu_s, pids)) for name, pids in self._roots.items()},
            machine_busy=machine.user + machine.nice + machine.system + getattr(machine, "softirq", 0.0),
            machine_stolen=getattr(machine, "steal", 0.0),
        )

    def memory(self) -> dict[str, float]:
        """Return the memory in megabytes by name.

        `rss_mb` counts shared pages in full for each process. `pss_mb` divides them among the processes.
        """
        figures: dict[str, float] = {}
        for name, pids in self._roots.items():
            infos = list(filter(None, map(_memory, chain.from_iterable(map(self._tree, pids)))))
            figures[f"rss_mb.{name}"] = sum(info.rss for info in infos) / MEGABYTE
            figures[f"pss_mb.{name}"] = sum(getattr(info, "pss", info.uss) for info in infos) / MEGABYTE
        figures["pss_mb"] = sum(value for name, value in figures.items() if name.startswith("pss_mb."))
        return figures

    def _tree_cpu_s(self, pid: int) -> float:
        """The CPU of a tree. It is read again when the root has waited for a child meanwhile.

        What the child has used would be missing, or count twice.
        """
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            while True:
                waited_s = _waited_s(root)
                tree_s = sum(map(_cpu_s, self._tree(pid)))
                if _waited_s(root) == waited_s:
                    return tree_s
        return 0.0

    def _tree(self, pid: int) -> Iterator[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                if process.pid not in self._ignored:
                    yield process


def _waited_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def _cpu_s(process: psutil.Process) -> float:
    # A process's times include the children that it has waited for. Living children are read separately.
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system) + _waited_s(process)
    return 0.0


def _memory(process: psutil.Process) -> Any:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.memory_full_info()
    return None
