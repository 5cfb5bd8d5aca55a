"""Who calls: a name for the journal, a tenant, what the caller may do, and how it was found out who it is."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent_runtime.domain.events import ANONYMOUS
from agent_runtime.domain.signature import DEFAULT_TENANT, Signature

SCOPES = ("submit", "approve", "read", "admin")
"""What a caller may be allowed; `admin` is all of it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever uses a verb of the service, as an authenticator found it out.

    `name` is the actor in the journal, unique within its `tenant`. `via` is how the caller was authenticated: `key`,
    `ticket`, `anonymous`, or the word of another authenticator.
    """

    name: str
    tenant: str
    scopes: frozenset[str]
    via: str

    def may(self, *scopes: str) -> bool:
        """Return whether the caller has one of these scopes."""
        return allow(self.scopes, scopes)

    @property
    def signature(self) -> Signature:
        """Return what the journal says of the caller in an event that the caller caused."""
        return {"actor": self.name, "tenant": self.tenant, "via": self.via}


def allow(scopes: Iterable[str], wanted: Iterable[str]) -> bool:
    """Return whether these scopes hold one of the wanted ones."""
    held = frozenset(scopes)
    return "admin" in held or not held.isdisjoint(wanted)


ANYBODY = Caller(ANONYMOUS, DEFAULT_TENANT, frozenset({"admin"}), "anonymous")
"""The caller where the service asks for no keys, and the command line in the process: everything is allowed."""
