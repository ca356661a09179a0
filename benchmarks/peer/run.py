"""The driver of the peer: unmodified edx-proctoring through its public API, in one process and one thread.

The Python of `benchmarks/peer/.venv` runs this file. It reads and writes JSON lines. After its first line,
which says that it is ready, it answers each request `{"first": N, "learners": M}`, which may have `"pause_s":
[from, to]`, with the cost of the learners N to N+M-1 (`work.run`). A learner may occur only once in a database.
The schema is created if it is missing.

The comparison favours the peer: there is no HTTP, no authentication, no page and no middleware around the
calls. The services make no queries, there is no event log, mail is dropped, there is one language, and the
cache is in the memory of the process.
"""

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

PACKAGES = ("edx-proctoring", "Django", "psycopg")


def main() -> None:
    """Set up Django and the database, then answer requests until standard input ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--database-url", required=True, help="postgresql+psycopg2://user:password@host:port/name"
    )
    parser.add_argument("--service-ms", type=float, default=0.0, help="what each service call and mail takes")
    arguments = parser.parse_args()
    _configure(arguments.database_url, arguments.service_ms)

    from benchmarks import driver_protocol
    from benchmarks.peer import services, work  # can only be imported by a Django that is set up

    services.install(arguments.service_ms)
    exams = work.ensure_exams()
    versions = {name: version(name) for name in PACKAGES}
    driver_protocol.write({"ready": True, "Python": platform.python_version()} | versions)
    for request in driver_protocol.requests():
        numbers = range(request["first"], request["first"] + request["learners"])
        driver_protocol.write(work.run(exams, numbers, request.get("pause_s")))


def _configure(database_url: str, service_ms: float) -> None:
    os.environ["PEER_DATABASE_URL"] = database_url
    os.environ["PEER_SERVICE_MS"] = str(service_ms)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.peer.settings"

    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, skip_checks=True)


if __name__ == "__main__":
    main()
