"""Serves the app with uvicorn: binds the socket, announces the URL, and stops gracefully."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from agent_runtime import __version__
from agent_runtime.api.app import create_app
from agent_runtime.api.auth import expect_auth_mode
from agent_runtime.api.listening import bind, keep_localhost, url_of
from agent_runtime.api.protocol import bounded_protocol
from agent_runtime.api.stream import Streams, idle_s
from agent_runtime.bootstrap import Recover, Runtime
from agent_runtime.config import LimitSettings, Secrets, Settings, fit_connections, raise_descriptor_limit
from agent_runtime.services.ports import PeerCheck
from agent_runtime.storage.opening import read_secret

log = structlog.get_logger()

_REQUESTS_END_WITHIN_S = 2
"""Seconds that open requests get when the service stops. After that, runs get `limits.shutdown_s`."""

_PONG_WITHIN_S = 20.0
"""Seconds in which the client of a WebSocket answers a ping, unless it is still reading what was sent before."""


def serve(settings: Settings, secrets: Secrets, announce: Callable[[str], None], *, recover: Recover = True) -> None:
    """Serve until SIGTERM or SIGINT, and return when everything has stopped.

    Calls `announce` with the URL as soon as the service answers. The caller owns the data directory and has configured
    logging.
    Raises: ConfigurationError, StoreUnavailableError.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Server(settings, secrets, announce, recover=recover).run())


class Server:
    """Serves the app once, on the event loop of `run`. Handles signals only in the main thread."""

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        announce: Callable[[str], None],
        *,
        recover: Recover = True,
        peers: PeerCheck | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._announce = announce
        self._recover = recover
        self._peers = peers
        self._stopped = False
        self._uvicorn: _Uvicorn | None = None

    @property
    def open_streams(self) -> int:
        """The number of open streams."""
        return self._uvicorn.open_streams if self._uvicorn else 0

    def stop(self) -> None:
        """End `run` gracefully. Thread-safe."""
        self._stopped = True
        if self._uvicorn:
            self._uvicorn.should_exit = True

    async def run(self) -> None:
        """Serve until stopped. Raises: the errors of `serve`."""
        settings = fit_connections(self._settings, raise_descriptor_limit())
        with (
            contextlib.closing(bind(settings.server)) as listener,
            keep_localhost(listener),
            contextlib.ExitStack() as signals,
        ):
            url = url_of(settings.server.host, listener)

            def on_started(runtime: Runtime) -> None:
                started["planner"] = runtime.planner
                signals.callback(_hear_hangups(self.stop, runtime.reloader.request))

            started: dict[str, str] = {}
            expect_auth_mode(settings)  # before the database is reached
            secret = await asyncio.to_thread(read_secret, settings.storage)
            app = create_app(
                settings, self._secrets, on_started, recover=self._recover, peers=self._peers, secret=secret
            )

            def on_listening() -> None:
                store, registry = settings.storage.shown, str(settings.tool_registry)
                self._announce(url)
                log.info("started", version=__version__, url=url, store=store, registry=registry, **started)

            server = self._uvicorn = _Uvicorn(app, settings.limits, on_listening)
            server.should_exit = self._stopped
            async with app.router.lifespan_context(app):
                await server.serve(sockets=[listener])
        log.info("stopped")


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that ends streams before it waits for requests, and that does not raise its signal again."""

    def __init__(self, app: FastAPI, limits: LimitSettings, on_listening: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded_protocol(limits),
                ws="none",  # `bounded_protocol` has its own, which uses the next four
                ws_max_size=limits.body_bytes,
                ws_ping_interval=idle_s(limits),
                ws_ping_timeout=_PONG_WITHIN_S,
                ws_per_message_deflate=False,
                lifespan="off",  # entered by the caller, so that its errors reach it
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_REQUESTS_END_WITHIN_S,
            )
        )
        self._streams: Streams = app.state.streams
        self._on_listening = on_listening

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the shape of a handler
        # A second Ctrl-C stops without waiting for requests.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


async def serve_running(runtime: Runtime, secrets: Secrets, listener: socket.socket) -> None:
    """Serve a service that runs already, at a socket of the caller, until cancelled."""
    app = create_app(runtime.settings, secrets, runtime=runtime)
    server = _Uvicorn(app, runtime.settings.limits)
    async with app.router.lifespan_context(app), asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise


def _hear_hangups(stop: Callable[[], None], reload: Callable[[], None]) -> Callable[[], object]:
    """Handle SIGHUP: reload the registry, or stop if the terminal was closed. Return a function that undoes it."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    terminals = [descriptor for descriptor in (0, 1, 2) if os.isatty(descriptor)]
    loop = asyncio.get_running_loop()

    def hear() -> None:
        closed = terminals and not any(map(os.isatty, terminals))
        stop() if closed else reload()

    loop.add_signal_handler(signal.SIGHUP, hear)
    return lambda: loop.remove_signal_handler(signal.SIGHUP)
