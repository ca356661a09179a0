"""The meter of the benchmark."""

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks.meter import Meter

ROOT, CHILD = 1, 2


class Tree:
    """A root and its child, which has used 5 s. The root waits for it after a number of readings."""

    def __init__(self, ends_after: int) -> None:
        self.left = ends_after

    def process(self, pid: int) -> Any:
        if pid == CHILD and self.left <= 0:
            raise psutil.NoSuchProcess(pid)
        return SimpleNamespace(pid=pid, cpu_times=lambda: self.times(pid), children=self.children)

    def children(self, recursive: bool) -> list[Any]:
        return [self.process(CHILD)] if self.left > 0 else []

    def times(self, pid: int) -> Any:
        self.left -= 1
        if pid == CHILD:
            if self.left < 0:
                raise psutil.NoSuchProcess(pid)
            return SimpleNamespace(user=5, system=0, children_user=0, children_system=0)
        waited = 5 if self.left < 0 else 0
        return SimpleNamespace(user=1, system=0, children_user=waited, children_system=0)


@pytest.mark.parametrize("ends_after", range(12))
def test_what_a_child_has_used_counts_once_whenever_it_ends(
    monkeypatch: pytest.MonkeyPatch, ends_after: int
) -> None:
    monkeypatch.setattr(psutil, "Process", Tree(ends_after).process)
    assert Meter({"postgres": [ROOT]}).read().cpu == {"postgres": 6}
