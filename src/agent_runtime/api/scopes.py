"""The scopes that a route needs: `requires` declares them, and the edge checks them before it reads a body."""

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope

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


class RouteScopes:
    """Finds the scopes that a request needs, by its route."""

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
        """Return the scopes of which the caller needs one; an empty tuple if the path is open to everybody.

        A path or method without a route needs `read` for GET and `admin` otherwise.
        """
        path = scope["path"]
        if scope["type"] == "websocket":
            return next((needed for pattern, needed in self._websocket if pattern.match(path)), ("read",))
        method = scope["method"]
        for pattern, methods, needed in self._http:
            if method in methods and pattern.match(path):
                return needed
        return ("read",) if method == "GET" else _UNDECLARED
