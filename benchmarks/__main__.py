"""`python -m benchmarks`: measures all contestants, prints tables, and writes docs/performance.md.

With `--only` it writes nothing unless `--write` is given, too. The other groups then keep their last results.
"""

import argparse
import importlib.util
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from traceback import format_exc
from types import ModuleType
from typing import Any

from benchmarks import engines, results, rivals
from benchmarks.bench import FIRST, WARM_UP, Bench, Samples
from benchmarks.goals import checks
from benchmarks.groups import ALL, QUICK
from benchmarks.table import print_checks, print_table

ROUNDS, QUICK_ROUNDS = 5, 1
NAMES = {group.NAME: group for group in ALL}
NEED_SPACE = {group.NAME for group in ALL if hasattr(group, "why_not")}
"""Groups that are left out where the disk is too small."""


def main() -> int:
    """Run the groups. Return the exit status: 1 when something could not be measured."""
    options, say = _options(), _progress()
    signal.signal(signal.SIGTERM, _stop)  # SystemExit, so that everything is cleaned up
    samples, left_out = Samples(), dict[str, str]()
    with (
        tempfile.TemporaryDirectory(prefix="invigilator-bench-") as folder,
        engines.running(Path(folder), say) as up,
    ):
        logs = Path(folder) / "logs"
        logs.mkdir()
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        bench = Bench(up, logs, options.quick, rounds, options.scale, say)
        if not rivals.PEER_PYTHON.exists():
            say("the peer is not installed (make peer): its rows are left out")
            left_out[rivals.PEER] = "it is not installed"
        about = results.describe(bench)
        for group in _groups(options):
            _measure(bench, group, samples, left_out)
            about["versions"] |= bench.versions
            if options.write:
                # A run takes hours and may be interrupted, so the results are written after each group.
                results.write(about, samples, left_out)
    _tell(options, about, samples)
    return 1 if any(name in NAMES and name not in NEED_SPACE for name in left_out) else 0


def _groups(options: argparse.Namespace) -> Sequence[ModuleType]:
    wanted = options.only or [group.NAME for group in (QUICK if options.quick else ALL)]
    return [NAMES[name] for name in wanted if name not in options.skip]


def _measure(bench: Bench, group: ModuleType, samples: Samples, left_out: dict[str, str]) -> None:
    why_not = group.why_not(bench) if hasattr(group, "why_not") else None
    if why_not is not None:
        bench.say(f"{group.NAME} is left out: {why_not}")
        left_out[group.NAME] = why_not
        return
    once = bench.quick or hasattr(group, "ROUNDS")
    number = min(bench.rounds, getattr(group, "ROUNDS", bench.rounds))
    rounds = range(FIRST if once else WARM_UP, FIRST + number)
    try:
        bench.alternate(group.NAME, group.contestants(bench), rounds, samples)
    except Exception as error:  # noqa: BLE001 - the other groups are still measured
        bench.say(f"{group.NAME} could not be measured: {format_exc()}")
        left_out[group.NAME] = f"{type(error).__name__} {error}".splitlines()[0]


def _tell(options: argparse.Namespace, about: dict[str, Any], samples: Samples) -> None:
    found = checks(samples)
    print_table(samples)
    print_checks(found, results.read_baseline() if options.quick else None)
    if options.update_baseline:
        results.write_baseline(about, found)
    if not options.write:
        return
    if importlib.util.find_spec("matplotlib") is None:
        sys.stderr.write("docs/performance.md is as it was: its charts need matplotlib (make bench)\n")
        return
    from benchmarks import report

    report.write()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small sizes; compare with benchmarks/baseline.json"
    )
    parser.add_argument("--update-baseline", action="store_true", help="write benchmarks/baseline.json")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="GROUP", help=", ".join(NAMES))
    parser.add_argument("--skip", nargs="+", choices=NAMES, metavar="GROUP", default=[])
    parser.add_argument("--write", action="store_true", help="write what --only has measured, too")
    parser.add_argument(
        "--rounds", type=int, help=f"at most so many that count, {ROUNDS}; {QUICK_ROUNDS} when quick"
    )
    parser.add_argument("--scale", type=float, default=1, help="of the full tables; 1 is 5 million attempts")
    options = parser.parse_args()
    options.write = not options.quick and (options.write or not options.only)
    return options


def _progress() -> Callable[[str], None]:
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:6.0f} s] {line}\n")
        sys.stderr.flush()

    return say


def _stop(number: int, _frame: Any) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
