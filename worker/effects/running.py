"""The tries that run in this process now."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class RunningTry:
    """A try of an effect that this process has in hand.

    Parameters:
        for_s: for how many seconds.
    """

    effect_id: UUID
    kind: str
    for_s: float


@dataclass(frozen=True, slots=True)
class RunningTries:
    """Knows the tries that run. Safe to share between threads."""

    _begun: dict[object, tuple[UUID, str, float]] = field(default_factory=dict)

    @contextmanager
    def noted(self, effect_id: UUID, kind: str) -> Iterator[None]:
        """Have a try among them for the duration of the `with`."""
        token = object()  # the same effect may be in hand twice
        self._begun[token] = (effect_id, kind, time.monotonic())
        try:
            yield
        finally:
            del self._begun[token]

    def oldest_first(self) -> list[RunningTry]:
        """Return the tries that run now."""
        now = time.monotonic()
        begun = self._begun.copy().values()
        tries = [RunningTry(effect_id, kind, now - since) for effect_id, kind, since in begun]
        return sorted(tries, key=lambda one: -one.for_s)
