"""How often Python looks for garbage in cycles of objects."""

import gc

CYCLES_AFTER = 20_000
"""After so many new objects a process looks for garbage in cycles."""


def look_for_cycles_rarely() -> None:
    """Let Python look for garbage in cycles after many new objects, and only among those.

    A batch of commands makes thousands of objects and no cycles; of effects only those that fail make some. With
    Python's own threshold the search takes a quarter of the CPU of `consume`, and a thirtieth of a worker's. A
    process calls this once, when it has loaded what it needs.
    """
    gc.freeze()
    gc.set_threshold(CYCLES_AFTER)
