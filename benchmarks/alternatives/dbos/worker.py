"""Runs DBOS, one process, until SIGTERM. With `--prepare` it creates the tables and the queue, and ends."""

import argparse
import signal

from dbos import DBOS

from benchmarks.alternatives.dbos.settings import DATABASE_URL, NAME, QUEUE

POLLING_S = 0.05
"""How often the queue is looked at. DBOS has no notification for it, and its default is a second."""
WORKFLOWS = 10
"""The number of workflows that run at the same time."""


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives.dbos.worker")
    parser.add_argument("--prepare", action="store_true")
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    DBOS(config={"name": NAME, "system_database_url": DATABASE_URL, "log_level": "WARNING"})
    _launch()
    if not options.prepare:
        signal.sigwait({signal.SIGTERM})
    DBOS.destroy()


def _launch() -> None:
    from benchmarks.alternatives.dbos import app  # its workflow is registered with the DBOS that is there

    assert app.change
    DBOS.launch()
    DBOS.register_queue(
        QUEUE, partition_concurrency=1, worker_concurrency=WORKFLOWS, polling_interval_sec=POLLING_S
    )


if __name__ == "__main__":
    main()
