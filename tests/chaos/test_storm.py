"""A short storm on each broker, with every kind of fault. `make chaos` runs longer ones."""

from datetime import UTC, datetime
from typing import get_args

import pytest

from tests.chaos.engines import Broker
from tests.chaos.plan import CLUSTER_KINDS, KINDS, PROCESSES, Cluster, plan
from tests.chaos.standstill import longest_pause
from tests.chaos.storm import Orders, run
from tests.chaos.traffic import stream

MINUTES = 0.45
RATE = 8
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SEEDS = {"redis": 11, "rabbitmq": 12}


@pytest.mark.parametrize("broker", get_args(Broker))
def test_a_short_storm(broker: Broker) -> None:
    report = run(Orders(SEEDS[broker], MINUTES, broker, RATE))
    assert report.findings == {}, f"see {report.kept}; again: {report.orders.line}"
    assert report.faults.keys() == {f"{kind.target} {kind.what}" for kind in KINDS}
    assert report.figures["commands"] > MINUTES * 60 * RATE


def test_the_seed_alone_makes_the_plan() -> None:
    assert plan(1, 120) == plan(1, 120) != plan(2, 120)
    assert stream(1, 500, 2, NOW) == stream(1, 500, 2, NOW) != stream(2, 500, 2, NOW)


@pytest.mark.parametrize("cluster", get_args(Cluster))
def test_a_cluster_takes_the_place_of_its_engine(cluster: Cluster) -> None:
    own = CLUSTER_KINDS[cluster]
    struck = {
        (fault.target.partition(".")[0], fault.what)
        for fault in Orders(1, 2, "redis", cluster=cluster).plan()
    }
    assert {(kind.target.partition(".")[0], kind.what) for kind in own} < struck
    assert ("commands", "kill") in struck
    assert ("broker", "kill") not in struck or own[0].target != "broker"
    # Or nothing else is struck
    alone = Orders(1, 2, "redis", cluster=cluster, only=True).plan()
    assert {(fault.target, fault.what) for fault in alone} == {(kind.target, kind.what) for kind in own}


def test_how_long_nothing_got_through() -> None:
    times = [1.0, 2.0, 9.0, 10.0, 30.0]
    assert longest_pause(times, begin=3, latest=4) == 7
    assert longest_pause(times, begin=9.5, latest=9.7) == 1
    assert longest_pause(times, begin=31, latest=40) == 0


def test_a_plan_spares_nobody_and_keeps_within_its_time() -> None:
    faults = plan(3, 600)
    slots = {f"{name}.{number}" for name, instances in PROCESSES.items() for number in range(instances)}
    assert slots < {fault.target for fault in faults}
    assert all(0 < fault.at_s < 600 for fault in faults)
