"""Who looks at the console, and which role their groups give them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from events.fields import MAX_ID, STORABLE
from invigilator.acts.actor import Actor, Role, Via

GROUPS: Mapping[str, Role] = {f"invigilator-{role}": role for role in Role}
"""The groups that give a role without a setting."""

_NAME = re.compile(STORABLE)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in.

    Parameters:
        name: as the provider or the proxy says.
        role: what they may do.
        origin: the address from which they come. None if it is not known.
        is_claimed: whether nobody has proved who they are.
    """

    name: str
    role: Role
    origin: str | None
    is_claimed: bool = False

    def actor(self) -> Actor:
        """Return who does what this person does."""
        return Actor(name=self.name, is_claimed=self.is_claimed, via=Via.CONSOLE, origin=self.origin)


def role_of(groups: Iterable[str], others: Mapping[str, Role]) -> Role | None:
    """Return the highest role that groups give. None when they give none.

    Parameters:
        groups: of a person.
        others: groups that give a role besides `GROUPS`.
    """
    given = {role for group in groups if (role := others.get(group, GROUPS.get(group)))}
    return max(given, key=list(Role).index, default=None)


def is_name(text: str) -> bool:
    """Return whether a text can be stored as the name of a person."""
    return 0 < len(text) <= MAX_ID and text.isprintable() and _NAME.search(text) is not None
