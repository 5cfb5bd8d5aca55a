"""Serves the app with uvicorn: binds the socket, announces the URL, and stops gracefully."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import structlog
import uvicorn
import uvloop

from agent_runtime import __version__
from agent_runtime.api.app import create_app
from agent_runtime.api.protocol import bounded_protocol
from agent_runtime.api.stream import Streams
from agent_runtime.bootstrap import Recover, Runtime
from agent_runtime.config import Secrets, ServerSettings, Settings, fit_connections, raise_descriptor_limit
from agent_runtime.domain.errors import ConfigurationError
from agent_runtime.services.ports import PeerCheck

log = structlog.get_logger()

_REQUESTS_END_WITHIN_S = 2
"""Seconds that open requests get when the service stops. After that, runs get `limits.shutdown_s`."""


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
            contextlib.closing(_bind(settings.server)) as listener,
            _keep_localhost(listener),
            contextlib.ExitStack() as signals,
        ):
            url = _url_of(settings.server.host, listener)

            def on_started(runtime: Runtime) -> None:
                started["planner"] = runtime.planner
                signals.callback(_hear_hangups(self.stop, runtime.reloader.request))

            started: dict[str, str] = {}
            app = create_app(settings, self._secrets, on_started, recover=self._recover, peers=self._peers)

            def on_listening() -> None:
                store, registry = settings.storage.shown, str(settings.tool_registry)
                self._announce(url)
                log.info("started", version=__version__, url=url, store=store, registry=registry, **started)

            config = uvicorn.Config(
                app,
                http=bounded_protocol(settings.limits),
                ws="none",
                lifespan="off",  # entered here, so that its errors reach the caller
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_REQUESTS_END_WITHIN_S,
            )
            server = self._uvicorn = _Uvicorn(config, app.state.streams, on_listening)
            server.should_exit = self._stopped
            async with app.router.lifespan_context(app):
                await server.serve(sockets=[listener])
        log.info("stopped")


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that ends streams before it waits for requests, and that does not raise its signal again."""

    def __init__(self, config: uvicorn.Config, streams: Streams, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._streams = streams
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


def _bind(server: ServerSettings) -> socket.socket:
    """Return the socket to listen on, bound before anything starts. Raises: ConfigurationError."""
    listener = None
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener:
            listener.close()
        raise ConfigurationError(
            f"The service cannot listen on {server.host}:{server.port}: {error.strerror or error}. "
            "Choose another server.host or server.port, or stop whatever uses it."
        ) from error
    return listener


@contextlib.contextmanager
def _keep_localhost(listener: socket.socket) -> Iterator[None]:
    """Reserve our port at the other loopback address, so that no other program can listen there.

    `localhost` is both 127.0.0.1 and ::1, and browsers use either. A program at the other address could serve a page
    and stop; the requests of that page would then reach us with our own origin.
    """
    mine, port = listener.getsockname()[:2]
    family, address = (socket.AF_INET6, "::1") if listener.family == socket.AF_INET else (socket.AF_INET, "127.0.0.1")
    with contextlib.ExitStack() as stack:
        try:
            other = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            other.bind((address, port))  # without listen(): clients are refused at once and use our address
        except OSError as error:
            if error.errno == errno.EADDRINUSE and mine != "::":  # `::` covers the IPv4 addresses too
                message = f"Another program uses port {port} of {address}: call this service as {mine}, not localhost."
                log.warning("localhost_shared", message=message)
        yield


_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def _url_of(host: str, listener: socket.socket) -> str:
    host, port = _LOOPBACK_OF.get(host, host), listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
