"""The caller of the service: name, tenant, scopes and authentication method."""

from collections.abc import Iterable
from dataclasses import dataclass

from agent_runtime.domain.events import ANONYMOUS
from agent_runtime.domain.signature import DEFAULT_TENANT, Signature

SCOPES = ("submit", "approve", "read", "admin")
"""The scopes of callers. `admin` includes all others."""

EDITOR_SCOPES = ("submit", "approve")
"""The scopes of which a caller needs each to approve a call with other arguments than were shown."""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    `name` is the actor in the journal, unique within its `tenant`. `via` is the authentication method: `key`, `ticket`,
    `anonymous`, or the name that another authenticator gives.
    """

    name: str
    tenant: str
    scopes: frozenset[str]
    via: str

    def may(self, *scopes: str) -> bool:
        """Return whether the caller has at least one of these scopes."""
        return allow(self.scopes, scopes)

    @property
    def signature(self) -> Signature:
        """Return the fields that name the caller in an event."""
        return {"actor": self.name, "tenant": self.tenant, "via": self.via}


def allow(scopes: Iterable[str], wanted: Iterable[str]) -> bool:
    """Return whether `scopes` include one of `wanted`, or `admin`."""
    held = frozenset(scopes)
    return "admin" in held or not held.isdisjoint(wanted)


ANYBODY = Caller(ANONYMOUS, DEFAULT_TENANT, frozenset({"admin"}), "anonymous")
"""The caller if the service requires no keys, and the command line in its own process. Has all scopes."""
