"""Runs DBOS, one process, until SIGTERM. With `--prepare` it creates the tables and the queue, and ends."""

import argparse
import signal

from dbos import DBOS

from benchmarks.alternatives.dbos.app import CONFIG, QUEUE, define

POLLING_S = 0.05
WORKFLOWS = 10
"""The number of workflows that run at the same time."""


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives.dbos.worker")
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    DBOS(config=CONFIG)
    define()
    DBOS.launch()
    DBOS.register_queue(
        QUEUE, partition_concurrency=1, worker_concurrency=WORKFLOWS, polling_interval_sec=POLLING_S
    )
    if not options.prepare:
        signal.sigwait({signal.SIGTERM})
    DBOS.destroy()


if __name__ == "__main__":
    main()
