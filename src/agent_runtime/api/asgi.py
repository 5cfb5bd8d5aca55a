"""The service as an ASGI app for servers that are not ours; `agent_runtime.main` has it."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import FrameType

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_runtime import __version__
from agent_runtime.api.foreign import is_local
from agent_runtime.config import Secrets, fit_connections, load_settings, protect_process, raise_descriptor_limit
from agent_runtime.domain.errors import AgentRuntimeError, AlreadyOwnedError, ConfigurationError
from agent_runtime.processes.tree import keep_orphans
from agent_runtime.storage.owner import Owner, own_storage
from agent_runtime.telemetry import configure_logging

log = structlog.get_logger()

_Handler = Callable[[int, FrameType | None], object]

_ONE_WORKER = (
    "Only one process can use them: if the server has started several workers, have it start one (with uvicorn "
    "--workers 1, and no WEB_CONCURRENCY)."
)


class Application:
    """Opens the service when the server begins the lifespan, and closes it, with all its processes, at the end.

    The settings come from the environment and the files, as for `agent-runtime serve`. A process serves it once.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._owner: Owner | None = None
        self._announced = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if self._app is None:
            raise RuntimeError(
                "The service is not open: let the server run the lifespan of the app (uvicorn --lifespan on)."
            )
        self._announce(scope)
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # `lifespan.startup`
        started = False
        try:
            async with self._open():
                started = True
                await send({"type": "lifespan.startup.complete"})
                await receive()  # `lifespan.shutdown`
        except AgentRuntimeError as error:
            message = f"{error} {_ONE_WORKER}" if isinstance(error, AlreadyOwnedError) else str(error)
            kind = "lifespan.shutdown.failed" if started else "lifespan.startup.failed"
            await send({"type": kind, "message": f"agent-runtime: {message}"})
            return
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        """Run the service. Raises: ConfigurationError, StoreUnavailableError."""
        secrets = Secrets()
        settings = load_settings(secrets=secrets)
        configure_logging(settings.log, secrets.redactor)
        for warning in settings.config_warnings:
            log.warning("configuration", message=warning)
        settings = fit_connections(settings, raise_descriptor_limit())
        protect_process(settings)
        with own_storage(settings) as self._owner, keep_orphans():
            from agent_runtime.api.app import create_app  # noqa: PLC0415 - after locking, as `serve` does

            app = create_app(settings, secrets, foreign_server=True)
            try:
                async with app.router.lifespan_context(app):
                    with _hear_stop(app.state.streams.close):
                        self._app = app
                        registry = str(settings.tool_registry)
                        log.info("started", version=__version__, store=settings.storage.shown, registry=registry)
                        yield
            finally:
                self._app = None
        log.info("stopped")

    def _announce(self, scope: Scope) -> None:
        """Write into the lock file where the command line finds the service, which the first request shows."""
        if self._announced or self._owner is None or scope["type"] != "http" or not is_local(scope):
            return
        self._announced = True
        host, port = scope["server"][:2]
        with suppress(ConfigurationError):  # the disk is full; the service works all the same
            self._owner.announce(f"{scope['scheme']}://{f'[{host}]' if ':' in host else host}:{port}")


@contextmanager
def _hear_stop(close_streams: Callable[[], None]) -> Iterator[None]:
    """Close all streams as soon as a signal stops the server.

    A server waits for open responses before it ends the lifespan, and a stream lasts as long as its task.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    set_by_us: list[tuple[signal.Signals, _Handler, _Handler]] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        earlier = signal.getsignal(number)
        if callable(earlier):
            ours = _chain(earlier, loop, close_streams)
            signal.signal(number, ours)
            set_by_us.append((number, earlier, ours))
    try:
        yield
    finally:
        for number, earlier, ours in set_by_us:
            if signal.getsignal(number) is ours:
                signal.signal(number, earlier)


def _chain(earlier: _Handler, loop: asyncio.AbstractEventLoop, close: Callable[[], None]) -> _Handler:
    def hear(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(close)
        earlier(number, frame)

    return hear
