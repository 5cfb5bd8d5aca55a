"""Reads what is not cached: in a few threads, each with its own connection, without blocking the writer."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock, local
from typing import TypeVar

import psycopg

from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.storage.postgres.connecting import (
    Connection,
    Database,
    is_connection_lost,
    make_unavailable_error,
)

T = TypeVar("T")

THREADS = 4


class Readers:
    """A pool of connections that can only read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool: ThreadPoolExecutor | None = None
        self._mine = local()
        self._connections: set[Connection] = set()
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

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one of the threads and return its result. Raises: what it raises, and StoreUnavailableError."""
        if self._pool is None:
            raise StoreUnavailableError("The store is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, work)

    def _run(self, work: Callable[[Connection], T]) -> T:
        """Run `work`; once more on a new connection if the one at hand turns out to be lost, as after a restart."""
        known = self._find_mine()
        try:
            return work(known or self._connect())
        except psycopg.Error as error:
            lost = self._drop_if_lost(error)
            if known is None or not lost:
                raise make_unavailable_error(error) from error
        try:
            return work(self._connect())
        except psycopg.Error as error:
            self._drop_if_lost(error)
            raise make_unavailable_error(error) from error

    def _find_mine(self) -> Connection | None:
        connection: Connection | None = getattr(self._mine, "connection", None)
        return connection

    def _connect(self) -> Connection:
        connection = self._mine.connection = self._database.connect(read_only=True)
        with self._lock:
            self._connections.add(connection)
        return connection

    def _drop_if_lost(self, error: psycopg.Error) -> bool:
        """Drop the connection if it is lost. Else end its transaction, and keep it."""
        connection = self._find_mine()
        if connection is None:
            return True
        if not is_connection_lost(connection, error):
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            if not connection.closed:
                return False
        self._mine.connection = None
        with self._lock:
            self._connections.discard(connection)
        connection.close()
        return True
