"""Runs procrastinate's worker, one process, until SIGTERM. With `--prepare` it creates the tables instead."""

import argparse
import asyncio

from benchmarks.alternatives.procrastinate.app import CONCURRENCY, app, pool


async def work() -> None:
    """Run the jobs that come."""
    async with pool, app.open_async(pool):
        await app.run_worker_async(concurrency=CONCURRENCY)


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives.procrastinate.worker")
    parser.add_argument("--prepare", action="store_true")
    if parser.parse_args().prepare:
        with app.open():
            app.schema_manager.apply_schema()
    else:
        asyncio.run(work())


if __name__ == "__main__":
    main()
