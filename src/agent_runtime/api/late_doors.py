"""Doors that cost nothing until they are used: a module is imported with the first request to one of its paths."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import import_module

from starlette._utils import get_route_path  # what the routes themselves match; there is no public name for it
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send


class LateDoor(BaseRoute):
    """Stands for the routes of `router` in a module, at or below some paths, such as `/api/v1`.

    The module is imported where it is first needed, on the event loop; a door whose libraries take longer than half a
    second imports them in a thread.
    """

    def __init__(self, module: str, *paths: str) -> None:
        self.module = module
        self._paths = paths

    @cached_property
    def routes(self) -> Sequence[BaseRoute]:
        """The routes of the door, for which its module is imported."""
        routes: Sequence[BaseRoute] = import_module(self.module).router.routes
        return routes

    def covers(self, path: str) -> bool:
        """Return whether the path is one of this door's, whether or not it has a route."""
        return any(path == own or path.startswith(f"{own}/") for own in self._paths)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        partial: tuple[Match, Scope] = (Match.NONE, {})
        if scope["type"] not in {"http", "websocket"} or not self.covers(get_route_path(scope)):
            return partial
        for route in self.routes:
            match, child_scope = route.matches(scope)
            found = match, {**child_scope, "route_of_door": route}
            if match is Match.FULL:
                return found
            if match is Match.PARTIAL and partial[0] is Match.NONE:
                partial = found
        return partial

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        route: BaseRoute = scope["route_of_door"]
        await route.handle(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: object) -> str:  # type: ignore[override]  # nothing is found by name
        raise NoMatchFound(name, dict(path_params))


def flatten(routes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """Return the routes with those of late doors in their places. This imports them."""
    return [each for route in routes for each in (route.routes if isinstance(route, LateDoor) else (route,))]
