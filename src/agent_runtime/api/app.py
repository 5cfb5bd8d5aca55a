"""The ASGI app: all routes behind the edge, on a running service."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from agent_runtime import __version__
from agent_runtime.api import console, exports, feed, health, metrics, openapi, planning, plans, problems, rest
from agent_runtime.api.auth import choose_authenticator
from agent_runtime.api.edge import Edge
from agent_runtime.api.scopes import RouteScopes
from agent_runtime.api.stream import Streams
from agent_runtime.api.tickets import Tickets
from agent_runtime.bootstrap import Recover, Runtime, open_runtime
from agent_runtime.config import Secrets, Settings
from agent_runtime.services.ports import PeerCheck
from agent_runtime.storage.secret_file import read_secret

ROUTERS: tuple[APIRouter, ...] = (
    rest.tasks,
    plans.plans,
    planning.router,
    exports.router,
    feed.router,
    rest.tools,
    rest.models,
    health.router,
    metrics.router,
    console.router,
    openapi.router,
)
"""All routers. Each endpoint declares its scopes with `requires`."""

_DESCRIPTION = "Turns a sentence into an approved plan of MCP tool calls, and runs exactly that plan."


def create_app(
    settings: Settings,
    secrets: Secrets,
    on_started: Callable[[Runtime], None] | None = None,
    *,
    recover: Recover = True,
    peers: PeerCheck | None = None,
) -> FastAPI:
    """Return the service as an ASGI app. Its lifespan opens and closes the runtime.

    `on_started` is called with the runtime before the first request. `recover` is passed to `open_runtime`. `peers`
    checks callers of a service without keys; by default it asks the operating system about them.
    Raises: ConfigurationError if keys are required and there are none. Entering the lifespan raises:
    ConfigurationError, StoreUnavailableError.
    """
    tickets = Tickets(read_secret(settings.data_dir), settings.auth.stream_ticket_s)
    authenticator = choose_authenticator(settings, tickets, peers)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with open_runtime(settings, secrets, recover=recover) as runtime:
                app.state.runtime = runtime
                if on_started:
                    on_started(runtime)
                yield
        finally:
            await authenticator.close()

    app = FastAPI(
        title="Agent Runtime",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the page of FastAPI loads code from elsewhere; ours works offline
        redoc_url=None,
        openapi_url=None,  # our own route serves it, with scopes like all routes
        redirect_slashes=False,
        root_path=settings.server.root_path,
    )
    app.state.streams = Streams(settings.limits.stream_clients)
    app.state.authenticator = authenticator
    app.state.large_bodies = asyncio.Semaphore(1)
    app.state.whole_journals = asyncio.Semaphore(1)
    # Not `include_router`: nested routers match all routes twice, which costs a third of a request.
    app.router.routes += [route for router in ROUTERS for route in router.routes]
    problems.install(app)
    routes = RouteScopes(app.routes)
    openapi.install(app, routes, with_keys=authenticator.asks_for_keys)
    app.add_middleware(Edge, settings.server, settings.limits, routes, authenticator)
    return app
