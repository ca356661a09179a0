"""The same as `test_order_and_idempotency`, on tables that are divided into partitions, while periods begin."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from hypothesis.stateful import precondition, rule
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from db import partitions
from db.partitions import KEYS, REST, lowest_id
from tests import engines
from tests.integration.db.test_partitions import divide
from tests.stateful.test_order_and_idempotency import (
    Machine,
    _quick_and_quiet,  # noqa: F401 - a fixture
    explore,
)

EXAMPLES = 4
STEPS = 30
SECONDS = 10
MOST_PERIODS = 12
PERIODS = count(1)


class Divided(Machine):
    """Begins periods of commands between the other steps."""

    def _may_begin(self) -> bool:
        with self.world.engine.begin() as connection:
            return len(partitions.read(connection).of("inbox")) < MOST_PERIODS

    @precondition(_may_begin)
    @rule()
    def a_period_of_commands_begins(self) -> None:
        # A worker that hangs in its transaction keeps it from beginning.
        with suppress(OperationalError), self.world.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            partitions.begin_commands(connection, str(next(PERIODS)))


@pytest.fixture
def divided_engine(postgres_url: str) -> Iterator[Engine]:
    """On a divided database. What comes in the next seconds goes to a partition for each, then to `rest`."""
    with engines.fresh_database(postgres_url) as url, engines.disposed(url) as engine:
        divide(engine)
        begin = datetime.now(UTC) + timedelta(seconds=5)
        bounds = [lowest_id(begin + number * timedelta(seconds=1)) for number in range(SECONDS + 1)]
        with engine.begin() as connection:
            for table in KEYS.keys() - set(partitions.COMMANDS):
                for lower, upper in pairwise(bounds):
                    part = str(lower)[:13].replace("-", "_")
                    partitions.like(connection, table, REST, part)
                    partitions.attach(connection, table, f"{table}_{part}", f"'{lower}'", f"'{upper}'")
        yield engine


def test_nothing_is_lost_doubled_or_out_of_order_on_divided_tables(divided_engine: Engine) -> None:
    reached: Counter[str] = Counter()
    explore(lambda: Divided(divided_engine, True, reached), EXAMPLES, STEPS)
    assert reached["a command came again"]
    with divided_engine.begin() as connection:
        assert len(partitions.read(connection).of("inbox")) > 2
