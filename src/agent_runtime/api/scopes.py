"""The scopes that a route needs: said at the route by `requires`, looked up at the edge before a body is read."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_ATTRIBUTE = "required_scopes"
_UNSAID = ("admin",)


def requires(*scopes: str) -> Callable[[Endpoint], Endpoint]:
    """Say of which scopes a caller of this endpoint needs one; of none: the endpoint is open to everybody.

    It stands below the decorator of the route, whatever kind of route that makes.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _ATTRIBUTE, scopes)
        return endpoint

    return mark


def scopes_of(endpoint: Callable[..., Any]) -> tuple[str, ...]:
    """Return the scopes of which a caller of this endpoint needs one; `admin` where it does not say."""
    said: tuple[str, ...] = getattr(endpoint, _ATTRIBUTE, _UNSAID)
    return said


class RouteScopes:
    """Finds the scopes that a request needs, by the route that will answer it."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._http: list[tuple[re.Pattern[str], frozenset[str], tuple[str, ...]]] = []
        self._websocket: list[tuple[re.Pattern[str], tuple[str, ...]]] = []
        for route in routes:
            if isinstance(route, Route):
                needed = scopes_of(route.endpoint)
                self._http.append((route.path_regex, frozenset(route.methods or ()), needed))
            elif isinstance(route, WebSocketRoute):
                self._websocket.append((route.path_regex, scopes_of(route.endpoint)))

    def needed_scopes(self, scope: Scope) -> tuple[str, ...]:
        """Return the scopes of which the caller needs one; none where the address is open to everybody.

        Where nothing is at the address, or not for this method, `read` for what would only read and else `admin`.
        """
        path = scope["path"]
        if scope["type"] == "websocket":
            return next((needed for pattern, needed in self._websocket if pattern.match(path)), ("read",))
        method = scope["method"]
        for pattern, methods, needed in self._http:
            if method in methods and pattern.match(path):
                return needed
        return ("read",) if method == "GET" else _UNSAID
