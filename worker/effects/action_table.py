"""The action of each kind of effect, found where its entry in `worker.kinds` says."""

from collections.abc import Callable, Mapping
from pkgutil import resolve_name

from worker.effects.action import Action
from worker.kinds import EffectKind


def find_action(kind: str, place: str) -> Callable[[], Action]:
    """Find the class that carries out the tries of a kind.

    Parameters:
        kind: the kind's name, for the error.
        place: where the class is, as `worker.effects.module:Class`.

    Raises:
        ImportError: there is no such place.
        TypeError: what is there is no class whose instances can be called.
    """
    try:
        found = resolve_name(place)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"kind of effect {kind!r}: there is no action {place} ({error})") from error
    if not (isinstance(found, type) and any("__call__" in vars(base) for base in found.__mro__)):
        raise TypeError(f"kind of effect {kind!r}: {place} is no class whose instances can be called")
    return found


ACTIONS: Mapping[str, Callable[[], Action]] = {
    kind: find_action(kind.value, kind.entry.action) for kind in EffectKind
}
"""The class of each kind. A kind without one is refused when this module is imported."""
