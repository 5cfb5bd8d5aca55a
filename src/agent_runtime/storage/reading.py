"""The threads of a store that read what is not cached, each with its own connection, without blocking the writer."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, local
from typing import Generic, Protocol, TypeVar

from agent_runtime.domain.errors import StoreClosedError


class _Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closable)
T = TypeVar("T")

THREADS = 4


class ReadingThreads(ABC, Generic[C]):
    """A pool of threads and of their connections, which can only read. A store says how it connects and reads."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._mine = local()
        self._connections: set[C] = set()
        self._lock = Lock()

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="agent-runtime-reader")

    async def stop(self) -> None:
        """Finish the reads that have begun, and close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
            while self._connections:
                self._connections.pop().close()

    async def read(self, work: Callable[[C], T]) -> T:
        """Run `work` in one of the threads and return its result. Raises: what it raises, and StoreUnavailableError."""
        return await self.submit(work)

    def submit(self, work: Callable[[C], T]) -> asyncio.Future[T]:
        """Run `work` in one of the threads, and return the future of its result. Raises: StoreUnavailableError."""
        if self._pool is None:
            raise StoreClosedError
        return asyncio.get_running_loop().run_in_executor(self._pool, self._run, work)

    # What follows runs in the threads.

    @abstractmethod
    def _run(self, work: Callable[[C], T]) -> T:
        """Run `work` on the connection of this thread. Raises: what it raises, and StoreUnavailableError."""

    @abstractmethod
    def _open_connection(self) -> C: ...

    def _find_connection(self) -> C | None:
        """Return the connection of this thread, if it has one."""
        connection: C | None = getattr(self._mine, "connection", None)
        return connection

    def _connect(self) -> C:
        connection: C = self._open_connection()
        self._mine.connection = connection
        with self._lock:
            self._connections.add(connection)
        return connection

    def _drop(self, connection: C) -> None:
        """Close the connection of this thread, so that its next read opens a new one."""
        self._mine.connection = None
        with self._lock:
            self._connections.discard(connection)
        connection.close()
