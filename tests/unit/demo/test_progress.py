"""Progress: when a session has settled, when it stalls, and how it is shown."""

from io import StringIO

import pytest
from rich.console import Console

from invigilator.demo.progress import STALLED_AFTER_S, Counts, StallDetector, StalledError, show_progress

GOAL = Counts(published=10, committed=8, quarantined=2, effects=5, mails=3)
DONE = Counts(published=10, committed=8, quarantined=2, effects=5, tries=6, mails=3)


@pytest.mark.parametrize(
    ("counts", "settled"),
    [
        (DONE, True),
        (Counts(published=9, committed=8, quarantined=2), False),
        (Counts(published=10, committed=7, quarantined=2), False),
        (Counts(published=10, committed=8, quarantined=1), False),
        (Counts(published=10, committed=8, quarantined=2, unfinished=1), False),
        # A lost effect also settles. The comparison of the snapshots finds it.
        (Counts(published=10, committed=8, quarantined=2, effects=4), True),
    ],
)
def test_settled(counts: Counts, settled: bool) -> None:
    assert counts.is_settled(GOAL) is settled


def test_a_stalled_session_is_an_error() -> None:
    now = [100.0]
    stall_detector = StallDetector(GOAL, clock=lambda: now[0])
    stuck = Counts(published=10, committed=6, quarantined=2, unfinished=4)
    stall_detector.check(Counts(published=9))
    now[0] += STALLED_AFTER_S
    stall_detector.check(stuck)
    now[0] += STALLED_AFTER_S - 1
    stall_detector.check(stuck)
    now[0] += 1
    with pytest.raises(StalledError, match="2 commands without an outcome, 4 effects not done"):
        stall_detector.check(stuck)


def test_lines_without_a_terminal() -> None:
    out = StringIO()
    with show_progress(Console(file=out, width=200), GOAL) as show:
        show(Counts(published=1))
        show(Counts(published=2))  # too soon for another line
        show(DONE)
    first, last = out.getvalue().splitlines()
    assert first.startswith("published 1/10, committed 0/8")
    assert last == "published 10/10, committed 8/8, effects 5/5, tries 6, mails 3/3"


def test_bars_on_a_terminal() -> None:
    out = StringIO()
    with show_progress(Console(file=out, width=200, force_terminal=True), GOAL) as show:
        show(DONE)
    assert "published" in out.getvalue()
    assert "10/10" in out.getvalue()
    assert "6 tries" in out.getvalue()
