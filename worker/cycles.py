"""How often Python looks for garbage in cycles of objects."""

import gc

CYCLES_AFTER = 20_000
"""After so many new objects a process looks for garbage in cycles."""
OLDER_AFTER = 2
"""After so many looks among new objects it looks among those that have survived one, and then among all.

With Python's ten, the frames of tasks that ended with an exception waited for a hundred looks: a worker kept 12 MB
of them. To look at all is cheap, because those of the start are not looked at.
"""


def look_for_cycles_rarely() -> None:
    """Let Python look for garbage in cycles after many new objects, and only among those.

    A batch of commands makes thousands of objects and no cycles; of effects only those that fail make some. With
    Python's own threshold the search takes a quarter of the CPU of `consume`, and a thirtieth of a worker's. A
    process calls this once, when it has loaded what it needs.
    """
    gc.freeze()
    gc.set_threshold(CYCLES_AFTER, OLDER_AFTER, OLDER_AFTER)
