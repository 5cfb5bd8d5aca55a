"""The scopes that a route needs: `requires` declares them, and the edge checks them before it reads a body."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

from agent_runtime.api.late_doors import LateDoor
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import ScopeMissingError

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_ATTRIBUTE = "required_scopes"
_UNDECLARED = ("admin",)


def requires(*scopes: str) -> Callable[[Endpoint], Endpoint]:
    """Declare the scopes of an endpoint: its callers need one of them. Without scopes it is open to everybody.

    Put this decorator below that of the route.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, scopes)
        return endpoint

    return mark


def scopes_of(endpoint: Callable[..., Any]) -> tuple[str, ...]:
    """Return the scopes of an endpoint, of which its callers need one; `admin` if it declares none."""
    scopes: tuple[str, ...] = getattr(endpoint, _ATTRIBUTE, _UNDECLARED)
    return scopes


def describe_missing(caller: Caller, needed: Sequence[str], taker: str) -> str:
    """Say that a caller has none of the scopes of which something needs one; `taker`: such as `this call needs`."""
    names = " or ".join(map(repr, needed))
    return f"The caller {caller.name!r} does not have the scope {names}, which {taker}."


def require_scope(caller: Caller, needed: Sequence[str], taker: str = "this needs") -> None:
    """Check that the caller has one of the scopes. Raises: ScopeMissingError."""
    if not caller.may(*needed):
        raise ScopeMissingError(describe_missing(caller, needed, taker), needed[0])


class RouteScopes:
    """Finds the scopes that a request needs, by its route."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._http: list[tuple[re.Pattern[str], frozenset[str], tuple[str, ...]]] = []
        self._websocket: list[tuple[re.Pattern[str], tuple[str, ...]]] = []
        self._late: dict[LateDoor, RouteScopes | None] = {}
        for route in routes:
            if isinstance(route, Route):
                needed = scopes_of(route.endpoint)
                self._http.append((route.path_regex, frozenset(route.methods or ()), needed))
            elif isinstance(route, WebSocketRoute):
                self._websocket.append((route.path_regex, scopes_of(route.endpoint)))
            elif isinstance(route, LateDoor):
                self._late[route] = None

    def needed_scopes(self, scope: Scope) -> tuple[str, ...]:
        """Return the scopes of which the caller needs one; an empty tuple if the path is open to everybody.

        A path or method without a route needs `read` for GET and `admin` otherwise.
        """
        path = scope["path"]
        if door := self._find_late(path):
            return door.needed_scopes(scope)
        if scope["type"] == "websocket":
            return next((needed for pattern, needed in self._websocket if pattern.match(path)), ("read",))
        method = scope["method"]
        for pattern, methods, needed in self._http:
            if method in methods and pattern.match(path):
                return needed
        return ("read",) if method == "GET" else _UNDECLARED

    def takes_websocket(self, scope: Scope) -> bool:
        """Return whether a WebSocket is served at this path."""
        if door := self._find_late(scope["path"]):
            return door.takes_websocket(scope)
        return any(pattern.match(scope["path"]) for pattern, _ in self._websocket)

    def _find_late(self, path: str) -> "RouteScopes | None":
        for door, scopes in self._late.items():
            if door.covers(path):
                self._late[door] = found = scopes or RouteScopes(door.routes)
                return found
        return None
