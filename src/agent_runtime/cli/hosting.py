"""The service inside a command, where none runs: on a thread of its own, for this command and for others beside it.

Another command finds it by the lock file and uses it over HTTP. The web framework is imported with the first of them.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

from agent_runtime.api.listening import bind, keep_localhost, url_of
from agent_runtime.api.local import LocalClient
from agent_runtime.bootstrap import Recover, Runtime, open_runtime
from agent_runtime.cli import output
from agent_runtime.client import Client
from agent_runtime.config import (
    AuthSettings,
    Secrets,
    Settings,
    fit_connections,
    protect_process,
    raise_descriptor_limit,
)
from agent_runtime.importing import one_import_at_a_time
from agent_runtime.processes.tree import keep_orphans
from agent_runtime.storage.owner import Owner

_LOOK_S = 0.1
"""Seconds between two looks at the tasks of other commands."""


@contextmanager
def host(settings: Settings, secrets: Secrets, owner: Owner, *, recover: Recover) -> Iterator[Client]:
    """Yield a client of the service, which runs until the context ends.

    If other commands use it by then, their running tasks are waited for. What they do later, one of them does by
    itself. Raises: ConfigurationError, StoreUnavailableError.
    """
    protect_process(settings)
    # Without keys, on loopback and for this command only: its user may read the data directory anyway.
    server = settings.server.model_copy(update={"host": "127.0.0.1", "port": 0})
    own = {"server": server, "auth": AuthSettings(mode="anonymous"), "role": "all"}
    settings = fit_connections(settings.model_copy(update=own), raise_descriptor_limit())
    hosted = _Hosted(settings, secrets, recover)
    with keep_orphans():
        thread = threading.Thread(target=hosted.run, name="service", daemon=True)
        thread.start()
        try:
            client = hosted.wait_for_start()
            owner.announce(str(client.url), brief=True)
            yield client
            hosted.wait_for_others()
        finally:
            hosted.stop()
            thread.join()
            hosted.ended.result()


@dataclass(slots=True)
class _Hosted:
    """The service on its thread. `ended` has its failure, if it failed."""

    settings: Settings
    secrets: Secrets
    recover: Recover
    started: "Future[tuple[LocalClient, Runtime, asyncio.AbstractEventLoop]]" = field(default_factory=Future)
    ended: "Future[None]" = field(default_factory=Future)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _has_guests: bool = False

    def run(self) -> None:
        """Run the service until it is stopped."""
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
            self.ended.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            self.ended.set_exception(error)

    def wait_for_start(self) -> LocalClient:
        """Return a client of the service. Raises: what has ended the service."""
        either: tuple[Future[Any], ...] = (self.started, self.ended)
        wait(either, return_when=FIRST_COMPLETED)
        if self.ended.done():
            self.ended.result()
        return self.started.result()[0]

    def wait_for_others(self) -> None:
        """Wait until no task of another command runs here. Ctrl-C ends the wait."""
        if not self._has_guests:
            return
        with suppress(KeyboardInterrupt):
            if self._is_busy():
                output.say("A task of another command runs in this one, which ends after it. Ctrl-C ends it now.")
            while self._is_busy():
                time.sleep(_LOOK_S)

    def _is_busy(self) -> bool:
        _, runtime, loop = self.started.result()
        queue = asyncio.run_coroutine_threadsafe(_read_queue(runtime), loop).result()
        return bool(queue["running"] or queue["waiting"])

    def stop(self) -> None:
        """End the service, and let open calls end within `limits.shutdown_s`."""
        if self.started.done():
            loop = self.started.result()[2]
            with suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(self._stopping.set)

    async def _serve(self) -> None:
        async with open_runtime(self.settings, self.secrets, recover=self.recover) as runtime:
            with closing(bind(self.settings.server)) as listener, keep_localhost(listener):
                listener.listen()
                async with asyncio.TaskGroup() as group:
                    guests = group.create_task(self._serve_guests(runtime, listener))
                    loop = asyncio.get_running_loop()
                    client = LocalClient(url_of(self.settings.server.host, listener), runtime, loop)
                    self.started.set_result((client, runtime, loop))
                    await self._stopping.wait()
                    guests.cancel()

    async def _serve_guests(self, runtime: Runtime, listener: socket.socket) -> None:
        """Serve other programs at the listener, once there is one."""
        knocked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, knocked.set)
        try:
            await knocked.wait()
        finally:
            loop.remove_reader(listener)
        self._has_guests = True
        server = await asyncio.to_thread(_load_server)
        await server(runtime, self.secrets, listener)


def _load_server() -> Any:
    with one_import_at_a_time:
        from agent_runtime.api.server import serve_running  # noqa: PLC0415 - brings the web framework

    return serve_running


async def _read_queue(runtime: Runtime) -> Mapping[str, int]:
    return runtime.runner.queue
