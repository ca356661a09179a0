"""What the work costs: CPU seconds and memory of process trees, by name."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

MEGABYTE = 1024 * 1024

Roots = Mapping[str, Sequence[int]]
"""The pids of the roots of each name's trees."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What had been used up to a moment. CPU in seconds."""

    at: float
    cpu: Mapping[str, float]
    machine_busy: float
    machine_stolen: float

    def since(self, before: "Reading") -> "Usage":
        """What was used in between."""
        return Usage(
            wall_s=self.at - before.at,
            cpu_s={name: max(0.0, seconds - before.cpu[name]) for name, seconds in self.cpu.items()},
            machine_busy_s=self.machine_busy - before.machine_busy,
            machine_stolen_s=self.machine_stolen - before.machine_stolen,
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used in a while. `machine_busy_s` counts everybody on the machine, also who is not measured;
    `machine_stolen_s` is what the host took away from it."""

    wall_s: float
    cpu_s: Mapping[str, float]
    machine_busy_s: float
    machine_stolen_s: float

    @property
    def total_cpu_s(self) -> float:
        """Of all names together."""
        return sum(self.cpu_s.values())

    def figures(self, unit: str, number: float) -> dict[str, float]:
        """CPU milliseconds for one of `number` units, in all and by name; how many CPUs were busy.

        `cpus.others`: with us who measure, and with everybody else on the machine.
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
    """Reads the process trees of `roots`.

    Parameters:
        roots: who is measured.
        ignored: pids in the trees that belong to the measuring, such as the database's process that serves us.
    """

    def __init__(self, roots: Roots, ignored: Collection[int] = ()) -> None:
        self._roots = roots
        self._ignored = frozenset(ignored)

    def read(self) -> Reading:
        """The CPU seconds so far."""
        machine = psutil.cpu_times()
        return Reading(
            at=time.perf_counter(),
            cpu={name: sum(map(_cpu_s, self._processes(pids))) for name, pids in self._roots.items()},
            machine_busy=machine.user + machine.nice + machine.system + getattr(machine, "softirq", 0.0),
            machine_stolen=getattr(machine, "steal", 0.0),
        )

    def memory(self) -> dict[str, float]:
        """Megabytes by name. Resident: `rss_mb`, shared pages counted for each process; `pss_mb`: counted once."""
        figures: dict[str, float] = {}
        for name, pids in self._roots.items():
            infos = list(filter(None, map(_memory, self._processes(pids))))
            figures[f"rss_mb.{name}"] = sum(info.rss for info in infos) / MEGABYTE
            figures[f"pss_mb.{name}"] = sum(getattr(info, "pss", info.uss) for info in infos) / MEGABYTE
        figures["pss_mb"] = sum(value for name, value in figures.items() if name.startswith("pss_mb."))
        return figures

    def _processes(self, pids: Sequence[int]) -> Iterator[psutil.Process]:
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    if process.pid not in self._ignored:
                        yield process


def _cpu_s(process: psutil.Process) -> float:
    # The children that a process has waited for are in its own times; those that live are read by themselves.
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)
    return 0.0


def _memory(process: psutil.Process) -> Any:
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.memory_full_info()
    return None
