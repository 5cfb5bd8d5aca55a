"""Reads what is not cached: in a few threads, each with its own connection, without blocking the writer."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TypeVar

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.storage.sqlite.database import connect_reader, make_unavailable_error
from agent_runtime.storage.sqlite.database_file import DatabaseFile

T = TypeVar("T")

THREADS = 4


class Readers:
    """A pool of connections that can only read."""

    def __init__(self, file: DatabaseFile) -> None:
        self._file = file
        self._pool: ThreadPoolExecutor | None = None
        self._mine = local()
        self._connections: set[sqlite3.Connection] = set()

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="agent-runtime-reader")

    async def stop(self) -> None:
        """Finish the reads that have begun, and close the connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)
            while self._connections:
                self._connections.pop().close()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one of the threads and return its result. Raises: what it raises, and StoreUnavailableError."""
        if self._pool is None:
            raise StoreUnavailableError("The store is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        try:
            if connection is None:
                self._file.check()
                connection = self._mine.connection = connect_reader(self._file.path)
                self._connections.add(connection)
            return work(connection)
        except sqlite3.Error as error:
            if connection is not None:  # the next read opens a new connection
                self._mine.connection = None
                self._connections.discard(connection)
                connection.close()
            raise make_unavailable_error(error) from error
