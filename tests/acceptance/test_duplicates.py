"""At least once on the wire is exactly once in the record, however often and in whatever dress it comes."""

import json
import random
from collections.abc import Callable, Sequence

from tests.acceptance.harness import Stack
from tests.acceptance.load import load
from tests.acceptance.oracle import assert_nothing_lost_or_doubled

DELIVERIES = 10


def test_thousands_of_duplicates_change_nothing(stack: Stack, calm_database_url: str) -> None:
    stack.start_all()
    bodies = load(300, learners=30, seed=5)
    stack.client.publish(interleaved(bodies, random.Random(6)))
    stack.settle()
    assert stack.number("SELECT count(*) FROM quarantine") == 0
    assert_nothing_lost_or_doubled(stack, calm_database_url)


def interleaved(bodies: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """Each ten times, the first ones in their order, the others anywhere after it and dressed differently."""
    places = [(float(at), body) for at, body in enumerate(bodies)]
    for at, body in enumerate(bodies):
        for _ in range(DELIVERIES - 1):
            place = at + chance.uniform(0.1, 20 if chance.random() < 0.5 else len(bodies))
            places.append((place, chance.choice(DRESSES)(body)))
    return [body for _, body in sorted(places, key=lambda one: one[0])]


def _retimed(body: bytes) -> bytes:
    return json.dumps({**json.loads(body), "time": "2026-03-01T09:00:00+01:00"}).encode()


def _indented(body: bytes) -> bytes:
    return json.dumps(json.loads(body), indent=2, sort_keys=True).encode()


DRESSES: Sequence[Callable[[bytes], bytes]] = (bytes, _retimed, _indented)
