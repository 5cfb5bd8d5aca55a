"""Who calls: a name for the journal, and what the caller may do."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent_runtime.domain.events import ANONYMOUS

SCOPES = ("submit", "approve", "read", "admin")
"""What a caller may be allowed; `admin` is all of it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever uses a verb of the service. `name` is the actor in the journal."""

    name: str
    scopes: frozenset[str]

    def may(self, *scopes: str) -> bool:
        """Return whether the caller has one of these scopes."""
        return allow(self.scopes, scopes)


def allow(scopes: Iterable[str], wanted: Iterable[str]) -> bool:
    """Return whether these scopes hold one of the wanted ones."""
    held = frozenset(scopes)
    return "admin" in held or not held.isdisjoint(wanted)


ANYBODY = Caller(ANONYMOUS, frozenset({"admin"}))
"""The caller where the service asks for no keys, and the command line in the process: everything is allowed."""
