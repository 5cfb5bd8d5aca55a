"""An MCP server of the operator's Python code, in a thread of its own with its own event loop.

Whatever the code does, it does not block the event loop of the service. A thread cannot be ended from outside: one that
does not stop by itself is left behind, and the process does not wait for it when it ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from threading import Thread
from typing import Any

import anyio
import structlog
from mcp.client._transport import TransportStreams
from mcp.server import Server
from mcp.shared.memory import MessageStream, create_client_server_memory_streams

log = structlog.get_logger(__name__)

_STOP_S = 2.0
"""How long the thread may take to end after its streams are closed."""

_CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError)


class ServerThread:
    """The thread of one server, from the import of its code to its end."""

    def __init__(self, name: str, load: Callable[[], Server[Any]]) -> None:
        """Take `load`, which is called in the thread."""
        self._load = load
        self.name = f"python server {name}"
        self._thread = Thread(target=self._run, name=self.name, daemon=True)
        self._started: Future[MessageStream] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main = asyncio.get_running_loop()
        self._to_main: MessageStream | None = None
        self.ended = asyncio.Event()

    async def start(self, to_main: MessageStream) -> MessageStream:
        """Import the code and start the server. Return its streams, which belong to the loop of the thread.

        Raises: the error of `load`.
        """
        self._to_main = to_main
        self._thread.start()
        return await asyncio.wrap_future(self._started)

    async def call(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something on the loop of the thread, and wait for it. It is not done if the thread has ended."""
        assert self._loop is not None  # noqa: S101 - it was started
        await _run_on(self._loop, work)

    def _run(self) -> None:
        try:
            server = self._load()
            asyncio.run(self._serve(server))
        except BaseException as error:  # noqa: BLE001 - the edge that owns the thread
            if not self._started.done():
                self._started.set_exception(error)
            else:
                log.warning("python_server_ended", thread=self.name, reason=repr(error))
        finally:
            with suppress(RuntimeError):  # the service has stopped
                self._main.call_soon_threadsafe(self.ended.set)

    async def _serve(self, server: Server[Any]) -> None:
        self._loop = asyncio.get_running_loop()
        async with create_client_server_memory_streams() as (near, (read, write)), anyio.create_task_group() as group:
            group.start_soon(self._send_back, near)
            self._started.set_result(near)
            await server.run(read, write, server.create_initialization_options())
            group.cancel_scope.cancel()

    async def _send_back(self, near: MessageStream) -> None:
        """Hand what the server sends over to the loop of the service, one message after the other."""
        assert self._to_main is not None  # noqa: S101 - it was started
        with suppress(*_CLOSED):
            async for message in near[0]:
                await _run_on(self._main, self._to_main[1].send(message))


async def _run_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Do something on the loop of another thread, and wait for it. Do nothing if that loop is closed."""
    try:
        done = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError:
        work.close()
    else:
        await asyncio.wrap_future(done)


@asynccontextmanager
async def serve_in_thread(
    name: str, load: Callable[[], Server[Any]], end: asyncio.Event
) -> AsyncIterator[TransportStreams]:
    """Run the server that `load` returns in a thread, and connect to it. `end` is set when it ends by itself.

    Raises: the error of `load`.
    """
    thread = ServerThread(name, load)
    async with create_client_server_memory_streams() as (client, near), anyio.create_task_group() as group:
        far = await thread.start(near)

        async def send_over() -> None:
            with suppress(*_CLOSED):
                async for message in near[0]:
                    await thread.call(far[1].send(message))

        async def watch() -> None:
            await thread.ended.wait()
            end.set()
            await near[1].aclose()

        group.start_soon(send_over)
        group.start_soon(watch)
        try:
            yield client
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await _stop(thread, far)


async def _stop(thread: ServerThread, far: MessageStream) -> None:
    """Close the streams of the server, and wait for the end of its thread, but not for long."""
    if not thread.ended.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await thread.call(far[1].aclose())
                await thread.ended.wait()
    if not thread.ended.is_set():
        log.warning("python_server_left_behind", thread=thread.name)
