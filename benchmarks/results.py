"""Stores the results: for each group the samples of its last run, and what is to be known about that run."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from kombu import Connection as BrokerConnection
from redis import Redis

from benchmarks.bench import Bench, Sample, Samples
from benchmarks.engines import RABBIT, VALKEY, connect
from benchmarks.goals import Check
from benchmarks.running import ROOT

RESULTS = ROOT / "benchmarks" / "results.json"
BASELINE = ROOT / "benchmarks" / "baseline.json"
PACKAGES = ("celery", "kombu", "amqp", "redis", "SQLAlchemy", "psycopg2-binary", "pydantic", "httpx")


def describe(bench: Bench) -> dict[str, Any]:
    """Return the date, command line, commit, machine and versions of a run. Contestants add versions later."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "commit": _commit(),
        "rounds": bench.rounds,
        "machine": _machine(),
        "versions": {
            "Python": platform.python_version(),
            **_engines(bench),
            **{name: version(name) for name in PACKAGES},
        },
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cpus": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[2], 2),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "") or (
        platform.processor() or platform.machine()
    )


def _engines(bench: Bench) -> dict[str, str]:
    connection = connect(bench.engines.database.url)
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        [postgres] = cursor.fetchone()
    connection.close()
    versions = {"PostgreSQL": str(postgres)}
    brokers = bench.engines.brokers
    with Redis.from_url(brokers[VALKEY].url) as client:
        info: Any = client.info("server")
        versions["Valkey"] = str(info.get("valkey_version", info["redis_version"]))
    if RABBIT in brokers:
        with BrokerConnection(brokers[RABBIT].url) as rabbit:
            rabbit.connect()
            versions["RabbitMQ"] = str(rabbit.connection.server_properties["version"])
    return versions


def write(about: Mapping[str, Any], samples: Samples, left_out: Mapping[str, str]) -> None:
    """Write the groups of a run to `RESULTS`. Other groups keep what an earlier run has measured.

    Parameters:
        about: the run.
        samples: what it has measured.
        left_out: why groups or contestants could not be measured.
    """
    document = _read()
    measured = {
        group: {
            "run": dict(about),
            "samples": [asdict(sample) for sample in samples.all if sample.group == group],
        }
        for group in samples.groups()
    }
    groups = document["groups"] | measured
    missing = {name: reason for name, reason in document["left_out"].items() if name not in measured}
    kept = {"left_out": {**missing, **left_out}, "groups": groups}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class Results:
    """What is in `RESULTS`.

    Parameters:
        runs: by group the run that has measured it.
        left_out: why groups or contestants were not measured.
        samples: of all groups.
    """

    runs: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]
    samples: Samples


def read() -> Results:
    """Read the last results of each group."""
    document = _read()
    groups = document["groups"]
    samples = Samples([Sample(**sample) for one in groups.values() for sample in one["samples"]])
    return Results({name: one["run"] for name, one in groups.items()}, document["left_out"], samples)


def _read() -> dict[str, Any]:
    if not RESULTS.exists():
        return {"left_out": {}, "groups": {}}
    document: dict[str, Any] = json.loads(RESULTS.read_text())
    return document


def read_baseline() -> dict[str, float]:
    """Read the committed ratios by title. Return none when there is no file."""
    if not BASELINE.exists():
        return {}
    ratios: dict[str, float] = json.loads(BASELINE.read_text())["ratios"]
    return ratios


def write_baseline(about: Mapping[str, Any], checks: list[Check]) -> None:
    """Write the ratios with which quick runs are compared."""
    document = {**about, "ratios": {check.title: round(check.value, 4) for check in checks}}
    BASELINE.write_text(json.dumps(document, indent=1) + "\n")
