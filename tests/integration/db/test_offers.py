"""Which kinds of effects there are to offer, and what was lost goes first."""

import pytest
from sqlalchemy import Engine

from db import offers
from db.offers import Due
from tests import sample_commands as c
from tests.integration.effects.conftest import Bench
from worker.kinds import EffectKind

CREDIT, MAIL = EffectKind.SET_CREDIT_STATUS, EffectKind.SEND_STATUS_EMAIL
KINDS = list(EffectKind)


@pytest.fixture
def bench(engine: Engine) -> Bench:
    """A bench with one effect on a credit and one mail, both due."""
    bench = Bench(engine)
    bench.apply(c.course(), c.exam("A"), c.learner(), c.create("A", taking_as_proctored=True))
    bench.apply(c.update("A", "submitted"))
    bench.execute("DELETE FROM effects WHERE kind NOT IN (:credit, :mail)", credit=CREDIT, mail=MAIL)
    newest = "SELECT max(sequence) FROM effects GROUP BY kind"
    bench.execute(f"DELETE FROM effects WHERE sequence NOT IN ({newest})")
    return bench


def test_only_the_kinds_with_something_to_offer_are_found(bench: Bench) -> None:
    [credit], [mail] = bench.ids(CREDIT), bench.ids(MAIL)
    with bench.engine.begin() as connection:
        found = offers.find_due(connection, KINDS)
        assert (set(found.due), set(found.lost)) == ({CREDIT, MAIL}, set())
        # and those alone that are asked for
        assert offers.find_due(connection, [MAIL]) == Due(due=[MAIL], lost=[])
    # When one is not due yet, and the worker of the other is lost
    bench.execute("UPDATE effects SET due_at = now() + interval '1h' WHERE id = :id", id=mail)
    assert bench.claim(credit) is not None
    bench.expire_leases()
    with bench.engine.begin() as connection:
        found = offers.find_due(connection, KINDS)
        assert found == Due(due=[], lost=[CREDIT])
        # Then it is offered, and not again
        made = offers.offer(connection, found, dict.fromkeys(KINDS, 9), 60)
        assert ([one.id for one in made.made], made.is_full) == ([credit], False)
    with bench.engine.begin() as connection:
        assert offers.find_due(connection, KINDS) == Due(due=[], lost=[])


def test_a_kind_gets_no_more_offers_than_it_has_room_for(bench: Bench) -> None:
    with bench.engine.begin() as connection:
        found = offers.find_due(connection, KINDS)
        offered = offers.offer(connection, found, {CREDIT: 0, MAIL: 1}, 60)
    assert ([one.kind for one in offered.made], offered.is_full) == ([MAIL], True)
