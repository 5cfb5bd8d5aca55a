"""Reads the database file in a few threads."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from agent_runtime.storage.reading import ReadingThreads
from agent_runtime.storage.sqlite.database import connect_reader, make_unavailable_error
from agent_runtime.storage.sqlite.database_file import DatabaseFile

T = TypeVar("T")


class Readers(ReadingThreads[sqlite3.Connection]):
    """A pool of connections that can only read."""

    def __init__(self, file: DatabaseFile) -> None:
        super().__init__()
        self._file = file

    def _open_connection(self) -> sqlite3.Connection:
        self._file.check()
        return connect_reader(self._file.path)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._find_connection() or self._connect())
        except sqlite3.Error as error:
            if connection := self._find_connection():
                self._drop(connection)
            raise make_unavailable_error(error) from error
