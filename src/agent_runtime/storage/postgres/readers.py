"""Reads the database in a few threads."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg

from agent_runtime.storage.postgres.connecting import (
    Connection,
    Database,
    is_connection_lost,
    make_unavailable_error,
)
from agent_runtime.storage.reading import ReadingThreads

T = TypeVar("T")


class Readers(ReadingThreads[Connection]):
    """A pool of connections that can only read."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    def _open_connection(self) -> Connection:
        return self._database.connect(read_only=True)

    def _run(self, work: Callable[[Connection], T]) -> T:
        """Run `work`; once more on a new connection if the one at hand turns out to be lost, as after a restart."""
        known = self._find_connection()
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

    def _drop_if_lost(self, error: psycopg.Error) -> bool:
        """Drop the connection if it is lost. Else end its transaction, and keep it."""
        connection = self._find_connection()
        if connection is None:
            return True
        if not is_connection_lost(connection, error):
            with suppress(psycopg.Error):
                connection.execute("ROLLBACK")
            if not connection.closed:
                return False
        self._drop(connection)
        return True
