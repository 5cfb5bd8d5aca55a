"""Who calls (G14): the port of the authenticators, the choice among them, and the caller of a request.

A caller is found out at the edge, from the head of the request alone: nothing of a body is read for a caller who is not
let in. An address that is not open needs a key, whether or not there is anything at it.
"""

from collections.abc import Mapping
from typing import Protocol

import structlog
from starlette.types import Scope

from agent_runtime.api.callers import AnonymousAuthenticator
from agent_runtime.api.key_holders import KeyAuthenticator
from agent_runtime.api.keys import KeyRing
from agent_runtime.api.problems import Refusal
from agent_runtime.api.tickets import Tickets
from agent_runtime.config import Settings
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.processes.peers import LocalPeers
from agent_runtime.services.ports import PeerCheck

log = structlog.get_logger()


class Authenticator(Protocol):
    """Finds out who calls, of HTTP and of WebSocket connections."""

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers must show something: the API reference says so."""

    async def authenticate(self, scope: Scope) -> Caller | Refusal:
        """Return the caller of this connection scope (`http` or `websocket`), or why nobody is let in.

        Called once for each request or handshake to an address that is not open, before anything of a body is read.
        Logs what it refuses. What it needs later, such as for `issue_ticket`, it may put into the scope.
        """

    def issue_ticket(self, scope: Scope, task_id: str) -> tuple[str, int]:
        """Return a ticket that opens the stream of one task for the caller of this scope, in place of a key.

        With it the second of Unix time until which it is valid. `authenticate` must know it again.
        """

    async def close(self) -> None:
        """Release what it holds. Idempotent."""


def choose_authenticator(settings: Settings, tickets: Tickets, peers: PeerCheck | None = None) -> Authenticator:
    """Return the authenticator that the settings ask for.

    `peers` judges callers where no keys are asked for; None: by what the operating system tells of them.
    Raises: ConfigurationError where a key cannot be read, or where no key can ever come.
    """
    keys = keys_of(settings)
    return AnonymousAuthenticator(peers or LocalPeers(), tickets) if keys is None else KeyAuthenticator(keys, tickets)


def anonymous_risks(settings: Settings) -> list[str]:
    """Return what the operator should know about letting everybody in; nothing where keys are asked for."""
    if settings.asks_for_keys:
        return []
    risks = []
    if settings.off_loopback:
        risks.append("auth.mode is anonymous: whoever reaches this service may submit, approve and read everything.")
    if "*" in settings.server.allowed_hosts:
        risks.append(
            "server.allowed_hosts has *, and no keys are asked for: any page that is open in a browser which reaches "
            "this service may submit, approve and read everything, under a name that it makes up (DNS rebinding). "
            "Name the hosts, or ask for keys (auth)."
        )
    return risks


def keys_of(settings: Settings) -> KeyRing | None:
    """Return the keys that callers must show one of; None where everybody is let in.

    A locked service has none yet, and starts: whoever looks for it finds it, and is told what to do.
    Raises: ConfigurationError where a key cannot be read, or where no key can ever come.
    """
    if not settings.asks_for_keys:
        for message in anonymous_risks(settings):
            log.warning("anonymous_access", host=settings.server.host, message=message)
        return None
    keys = KeyRing(settings.auth)
    if keys.locked and settings.auth.mode and not settings.auth.keys_file:
        raise ConfigurationError(
            "auth.mode is keys, and there are no keys: make one with `agent-runtime keys new NAME --scopes admin` and "
            "name the file of its line in auth.keys_file, or let everybody in with auth.mode: anonymous."
        )
    if keys.locked:
        log.warning("locked", host=settings.server.host, message=keys.locked)
    return keys


def caller_of(scope: Mapping[str, object]) -> Caller:
    """Return who calls, as the edge found out; for every route that is not open to everybody."""
    caller = scope["caller"]
    assert isinstance(caller, Caller)  # noqa: S101 - the edge lets nobody else pass
    return caller
