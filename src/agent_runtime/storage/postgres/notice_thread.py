"""A thread that hears notices on a connection of its own. It opens a lost connection again, after growing pauses."""

import os
import selectors
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import psycopg

from agent_runtime.storage.postgres.connecting import Connection, Database

_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class NoticeThread(ABC):
    """Runs `_begin` and `_serve` in a thread, on one connection after the other, until `stop`.

    `name` is that of the thread. With `read_only` the connections can only read.
    """

    def __init__(self, database: Database, name: str, *, read_only: bool = False) -> None:
        self._database = database
        self._read_only = read_only
        self._stopping = Event()
        self._wake, self._waker = os.pipe()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the thread. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            os.write(self._waker, b"x")
            self._thread.join()
            os.close(self._wake)
            os.close(self._waker)

    # What follows runs in the thread.

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with self._database.connect(read_only=self._read_only) as connection:
                    self._begin(connection, again=failures > 0)
                    failures = 0
                    self._serve(connection)
            except psycopg.Error as error:
                if not failures:
                    self._note_lost(" ".join(str(error).split()))
                failures += 1
            self._end()
            if failures:
                self._stopping.wait(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1])

    @contextmanager
    def _select(self, connection: Connection) -> Iterator[selectors.BaseSelector]:
        """Return a selector for what the server sends, and for the pipe `_wake`."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            yield selector

    @abstractmethod
    def _begin(self, connection: Connection, *, again: bool) -> None:
        """Listen on a new connection; with `again`, after failures. Raises: psycopg.Error."""

    @abstractmethod
    def _serve(self, connection: Connection) -> None:
        """Take notices until the connection is lost or `stop` is called. Raises: psycopg.Error."""

    @abstractmethod
    def _note_lost(self, error: str) -> None:
        """Log the first of the failures in a row."""

    @abstractmethod
    def _end(self) -> None:
        """Note that there is no connection now."""
