"""The peer of the benchmark: edx-proctoring, unmodified, through its public API. One process, one thread.

Started as a file by the Python of `benchmarks/peer/.venv`. Speaks JSON lines: says that it is ready, then answers
each `{"first": N, "learners": M}`, with or without `"pause_s": [from, to]`, with what the learners N to N+M-1 took
(`work.run`). No learner may come twice in one database; a database that has the schema is used as it is.

What favours the peer: no HTTP, no authentication, no page and no middleware around the calls, no queries by the
services, no event log, mail dropped, one language, and only a process's own memory as the cache.
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

PACKAGES = ("edx-proctoring", "Django", "psycopg")


def main() -> None:
    """Set up, then serve until stdin ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--database-url", required=True, help="postgresql+psycopg2://user:password@host:port/name"
    )
    parser.add_argument("--service-ms", type=float, default=0.0, help="what each service call and mail takes")
    arguments = parser.parse_args()
    _configure(arguments.database_url, arguments.service_ms)

    from benchmarks.peer import services, work  # can only be imported by a Django that is set up

    services.install(arguments.service_ms)
    exams = work.ensure_exams()
    _say({"ready": True, "Python": platform.python_version()} | {name: version(name) for name in PACKAGES})
    for line in sys.stdin:
        request = json.loads(line)
        numbers = range(request["first"], request["first"] + request["learners"])
        _say(work.run(exams, numbers, request.get("pause_s")))


def _configure(database_url: str, service_ms: float) -> None:
    os.environ["PEER_DATABASE_URL"] = database_url
    os.environ["PEER_SERVICE_MS"] = str(service_ms)
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.peer.settings"

    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0, skip_checks=True)


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
