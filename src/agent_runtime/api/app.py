"""The ASGI app: all routes behind the edge, on a running service."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext

from fastapi import APIRouter, FastAPI

from agent_runtime import __version__
from agent_runtime.api import (
    console,
    conversations,
    error_handlers,
    exports,
    feed,
    health,
    me,
    metrics,
    openapi,
    planning,
    plans,
    rest,
)
from agent_runtime.api.auth import choose_authenticator
from agent_runtime.api.background import keep_background
from agent_runtime.api.edge import Edge
from agent_runtime.api.foreign import CloseUnread, ExpectBody, ForeignServerAuthenticator
from agent_runtime.api.late_doors import LateDoor
from agent_runtime.api.scopes import RouteScopes
from agent_runtime.api.stream import Streams
from agent_runtime.api.tickets import Tickets
from agent_runtime.bootstrap import Recover, Runtime, open_runtime
from agent_runtime.config import Secrets, Settings
from agent_runtime.services.ports import PeerCheck
from agent_runtime.storage.opening import read_secret

ROUTERS: tuple[APIRouter | LateDoor, ...] = (
    rest.tasks,
    plans.plans,
    planning.router,
    conversations.router,
    exports.router,
    feed.router,
    rest.tools,
    rest.models,
    LateDoor("agent_runtime.api.runs", "/api/v1"),
    LateDoor("agent_runtime.api.states", "/v1/state"),
    health.router,
    me.router,
    metrics.router,
    openapi.router,
    LateDoor("agent_runtime.api.tasks", "/tasks", "/api/tasks"),
    LateDoor("agent_runtime.api.mcp", "/mcp"),
    LateDoor("agent_runtime.api.agui", "/agui"),
    LateDoor("agent_runtime.api.copilotkit", "/copilotkit"),
    console.router,  # last, because it has a route for each of its files
)
"""All routers. Each endpoint declares its scopes with `requires`. A late door is imported once it is used."""

WORKER_ROUTERS = (health.router, metrics.router)
"""The routers of a replica that only runs tasks: it takes no requests about them."""

_DESCRIPTION = "Turns a sentence into an approved plan of MCP tool calls, and runs exactly that plan."


def create_app(
    settings: Settings,
    secrets: Secrets,
    on_started: Callable[[Runtime], None] | None = None,
    *,
    recover: Recover = True,
    runtime: Runtime | None = None,
    peers: PeerCheck | None = None,
    foreign_server: bool = False,
    secret: bytes | None = None,
) -> FastAPI:
    """Return the service as an ASGI app. Its lifespan opens and closes the runtime.

    `on_started` is called with the runtime before the first request. `recover` is passed to `open_runtime`. With
    `runtime`, a service that runs already is served, and left running. `peers` checks callers of a service without
    keys; by default it asks the operating system about them. With `foreign_server` the app keeps the rules of the edge
    under any ASGI server. `secret`: see `read_secret`, which is called without it.
    Raises: ConfigurationError if keys are required and there are none. Entering the lifespan raises:
    ConfigurationError, StoreUnavailableError.
    """
    tickets = Tickets(secret or read_secret(settings.storage), settings.auth.stream_ticket_s)
    authenticator = choose_authenticator(settings, tickets, peers)
    if foreign_server:
        authenticator = ForeignServerAuthenticator(authenticator, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with (
                nullcontext(runtime)
                if runtime
                else open_runtime(settings, secrets, recover=recover, secret=secret) as opened,
                keep_background() as background,
            ):
                app.state.runtime, app.state.background = opened, background
                if on_started:
                    on_started(opened)
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
    routers = WORKER_ROUTERS if settings.role == "worker" else ROUTERS
    # Not `include_router`: nested routers match all routes twice, which costs a third of a request.
    for router in routers:
        app.router.routes += [router] if isinstance(router, LateDoor) else router.routes
    error_handlers.install(app)
    routes = RouteScopes(app.routes)
    openapi.install(app, routes, with_keys=authenticator.asks_for_keys)
    if foreign_server:
        app.add_middleware(ExpectBody)
    app.add_middleware(
        Edge, settings.server, settings.limits, routes, authenticator
    )  # around those that are added before
    if foreign_server:
        app.add_middleware(CloseUnread)
    return app
