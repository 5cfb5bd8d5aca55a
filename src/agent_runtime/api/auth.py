"""Authentication (G14): the port of the authenticators, the choice among them, and the caller of a request.

The edge authenticates a caller by the head of the request alone, so no body of a refused caller is read. A path that is
not open to everybody needs a key, even if there is no such route.
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
    """Identifies the caller of an HTTP request or a WebSocket handshake."""

    @property
    def asks_for_keys(self) -> bool:
        """True if callers need a key; the API reference then says so."""

    async def authenticate(self, scope: Scope) -> Caller | Refusal:
        """Return the caller of this ASGI scope (`http` or `websocket`), or the reason for a refusal.

        Called once per request or handshake, unless the path is open to everybody, and before the body is read. Logs
        refusals. May store in the scope what it needs later, for example for `issue_ticket`.
        """

    def issue_ticket(self, scope: Scope, task_id: str) -> tuple[str, int]:
        """Return a ticket that opens the stream of one task without a key, and its expiry in Unix seconds.

        `authenticate` must accept the ticket as the caller of this scope.
        """

    async def close(self) -> None:
        """Release all resources. Idempotent."""


def choose_authenticator(settings: Settings, tickets: Tickets, peers: PeerCheck | None = None) -> Authenticator:
    """Return the authenticator that the settings select.

    `peers` checks callers of a service without keys; by default it asks the operating system about them.
    Raises: ConfigurationError if a key cannot be read, or if keys are required and none can ever be added.
    """
    keys = keys_of(settings)
    return AnonymousAuthenticator(peers or LocalPeers(), tickets) if keys is None else KeyAuthenticator(keys, tickets)


def anonymous_risks(settings: Settings) -> list[str]:
    """Return the risks of a service without keys, one sentence each; an empty list if keys are required."""
    if settings.asks_for_keys:
        return []
    risks = []
    if settings.off_loopback:
        risks.append(
            "auth.mode is anonymous: anybody who can reach this service may submit, approve and read everything."
        )
    if "*" in settings.server.allowed_hosts:
        risks.append(
            "server.allowed_hosts contains *, and no keys are required: any web page in a browser that can reach this "
            "service may submit, approve and read everything, through a host name of its choice (DNS rebinding). List "
            "the hosts, or require keys (auth)."
        )
    return risks


def expect_auth_mode(settings: Settings) -> None:
    """Check that the operator says who may call, as replicas need. Raises: ConfigurationError."""
    if settings.storage.on_postgresql and settings.auth.mode is None:
        raise ConfigurationError(
            "storage.url names a PostgreSQL database, and auth.mode is not set: replicas must agree on who may call. "
            "Set auth.mode to keys and name an auth.keys_file, or set it to anonymous to let everybody in."
        )


def keys_of(settings: Settings) -> KeyRing | None:
    """Return the valid keys, or None if the service requires none.

    A service that has no key yet starts locked, so that callers reach it and are told what to do.
    Raises: ConfigurationError if a key cannot be read, if keys are required and none can ever be added, or if the store
    is on a server and `auth.mode` is not set.
    """
    expect_auth_mode(settings)
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
    """Return the caller that the edge has authenticated. Not for routes that are open to everybody."""
    caller = scope["caller"]
    assert isinstance(caller, Caller)  # noqa: S101 - the edge refuses all other requests
    return caller
