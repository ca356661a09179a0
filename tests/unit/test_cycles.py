"""How often Python looks for garbage in cycles of objects."""

import subprocess
import sys

OLD_CYCLE = """
import gc, weakref
from worker.cycles import CYCLES_AFTER, look_for_cycles_rarely

class Node:
    pass

look_for_cycles_rarely()
node = Node()
node.itself, seen = node, weakref.ref(node)
gc.collect(1)  # it survives, so it is among the oldest
del node
for _ in range(30):
    made = [[] for _ in range(CYCLES_AFTER + 1000)]  # Python keeps some dead lists, and does not count those
print(seen())
"""


def test_a_cycle_that_has_survived_some_looks_does_not_stay_for_long() -> None:
    # In a process of its own, because it changes how Python looks in all of it
    ran = subprocess.run([sys.executable, "-c", OLD_CYCLE], capture_output=True, text=True, check=True)
    assert ran.stdout == "None\n"
