"""How long nothing got through after each fault: no command was taken, none committed, no effect done."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from tests.acceptance.harness import Stack
from tests.chaos.plan import Fault

LATER_S = 30.0
"""A standstill that begins later than so long after a fault has another reason."""

_COMMITTED = "SELECT extract(epoch FROM handled_at)::float8 AS at FROM outcomes ORDER BY 1"
_DONE = "SELECT extract(epoch FROM started_at)::float8 AS at FROM tries WHERE result = 'done' ORDER BY 1"


def standstills(
    stack: Stack, taken_at: Sequence[float], struck: Sequence[tuple[float, float, Fault]], began_at: float
) -> dict[str, dict[str, list[float]]]:
    """Measure the longest pause around each fault, in seconds.

    Parameters:
        taken_at: when the broker took each command, in seconds since 1970.
        struck: when each fault began and was over, in seconds after `began_at`.

    Returns:
        By fault, and then by what paused.
    """
    moments: Mapping[str, Sequence[float]] = {
        "published": sorted(taken_at),
        "committed": [row.at for row in stack.rows(_COMMITTED)],
        "done": [row.at for row in stack.rows(_DONE)],
    }
    starts = sorted(began_at + begin for begin, _, _ in struck)
    found: dict[str, dict[str, list[float]]] = {}
    for begin, over, fault in sorted(struck):
        after = began_at + begin
        latest = min([start for start in starts if start > after], default=began_at + over + LATER_S)
        pauses = found.setdefault(f"{fault.target} {fault.what}", {name: [] for name in moments})
        for name, times in moments.items():
            pauses[name].append(round(longest_pause(times, after, latest), 2))
    return found


def longest_pause(times: Sequence[float], begin: float, latest: float) -> float:
    """Return the longest time between two moments that follow each other, around what is between the other two.

    Example:
        >>> longest_pause([1, 2, 9, 10, 30], 3, 11)
        20
    """
    return max((two - one for one, two in pairwise(times) if two > begin and one < latest), default=0.0)
