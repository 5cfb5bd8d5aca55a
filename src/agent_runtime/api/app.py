"""The app: all routes behind the edge, around a running service."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, nullcontext

from fastapi import FastAPI

from agent_runtime import __version__
from agent_runtime.api import audit, console, health, metrics, openapi, plans, problems, rest
from agent_runtime.api.auth import Access, keys_of
from agent_runtime.api.callers import Callers
from agent_runtime.api.edge import Edge
from agent_runtime.api.stream import Streams
from agent_runtime.api.tickets import Tickets
from agent_runtime.bootstrap import Recover, Runtime, open_runtime
from agent_runtime.config import Secrets, Settings
from agent_runtime.processes.peers import LocalPeers
from agent_runtime.services.ports import PeerCheck
from agent_runtime.storage.secret_file import read_secret

_DESCRIPTION = "Turns a sentence into an approved plan of MCP tool calls, and runs exactly that plan."


def create_app(
    settings: Settings,
    secrets: Secrets,
    on_started: Callable[[Runtime], None] | None = None,
    *,
    recover: Recover = True,
    peers: PeerCheck | None = None,
) -> FastAPI:
    """The service as an ASGI app; its lifespan opens the runtime and closes it.

    `on_started` gets the runtime before the first request. `recover`: as for `open_runtime`. `peers` judges callers
    where no keys are asked for; None: by what the operating system tells of them.
    Raises: ConfigurationError where there are no keys and must be. Entering the lifespan raises: ConfigurationError,
    StoreUnavailableError.
    """
    keys = keys_of(settings)
    callers = Callers(peers or LocalPeers()) if keys is None else None
    tickets = Tickets(read_secret(settings.data_dir), settings.auth.stream_ticket_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with closing(callers) if callers else nullcontext():
            async with open_runtime(settings, secrets, recover=recover) as runtime:
                app.state.runtime = runtime
                if on_started:
                    on_started(runtime)
                yield

    app = FastAPI(
        title="Agent Runtime",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the usual page loads its code from elsewhere; ours works offline
        redoc_url=None,
        redirect_slashes=False,
        root_path=settings.server.root_path,
    )
    app.state.streams = Streams(settings.limits.stream_clients)
    app.state.tickets = tickets
    app.state.large_bodies = asyncio.Semaphore(1)
    app.state.whole_journals = asyncio.Semaphore(1)
    tasks = (rest.tasks, plans.plans, audit.router)
    for router in (*tasks, rest.tools, rest.models, health.router, metrics.router, console.router):
        app.include_router(router)
    problems.install(app)
    openapi.install(app, with_keys=keys is not None)
    access = None if keys is None else Access(keys, tickets)
    app.add_middleware(Edge, settings.server, settings.limits, access, callers)
    return app
