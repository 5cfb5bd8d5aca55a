"""The thread that hears what other processes have committed.

It never polls: it opens a lost connection again, and reads from the tables what it has missed meanwhile.
"""

import os
import selectors
from collections.abc import Callable, Collection
from threading import Event, Thread

import psycopg
import structlog
from psycopg import sql

from agent_runtime.storage.postgres.commits import has_pending, select_head
from agent_runtime.storage.postgres.connecting import Connection, Database
from agent_runtime.storage.postgres.notices import News, read_payload
from agent_runtime.storage.postgres.rows import select_versions

log = structlog.get_logger(__name__)

CATCH_UP_S = 30.0
"""How often the tables are looked at without a notice: one that got lost delays nobody for longer."""

_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class Listener:
    """Hears the notices of other processes. `tell` is called in its thread.

    `followed` returns the ids of the tasks that somebody follows here, `own_pid` the server's process whose notices
    are this process's own.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        tell: Callable[[News], None],
        followed: Callable[[], Collection[str]],
        own_pid: Callable[[], int],
    ) -> None:
        self._database = database
        self._channel = channel
        self._tell = tell
        self._followed = followed
        self._own_pid = own_pid
        self._stopping = Event()
        self._wake, self._waker = os.pipe()
        self._thread = Thread(target=self._run, name="agent-runtime-listener", daemon=True)
        self._ready = Event()

    def start(self) -> None:
        """Start listening. Return once notices are heard, or cannot be for now."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop, and wait for the thread. Idempotent."""
        if not self._stopping.is_set():
            self._stopping.set()
            os.write(self._waker, b"x")
            self._thread.join()
            os.close(self._wake)
            os.close(self._waker)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                with self._database.connect(read_only=True) as connection:
                    connection.add_notify_handler(lambda notice: self._hear(notice.pid, notice.payload))
                    connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
                    if failures:
                        log.info("listener_recovered")
                    failures = 0
                    self._listen(connection)
            except psycopg.Error as error:
                if not failures:
                    log.warning("listener_lost", error=" ".join(str(error).split()))
                failures += 1
            self._ready.set()
            if failures:
                self._stopping.wait(_PAUSES_S[min(failures, len(_PAUSES_S)) - 1])

    def _listen(self, connection: Connection) -> None:
        """Tell what is new until the connection is lost or `stop` is called. Raises: psycopg.Error."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            self._catch_up(connection)
            self._ready.set()
            while not self._stopping.is_set():
                if selector.select(CATCH_UP_S):
                    self._take(connection)
                else:
                    self._catch_up(connection)

    def _take(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while notice := connection.pgconn.notifies():
            self._hear(notice.be_pid, notice.extra.decode())

    def _hear(self, pid: int, payload: str) -> None:
        if pid != self._own_pid():
            self._tell(read_payload(payload))

    def _catch_up(self, connection: Connection) -> None:
        """Tell what the tables say of the tasks that are followed here, and of the chain."""
        followed = self._followed()
        versions = select_versions(connection, followed)
        gone = frozenset(followed) - versions.keys()
        self._tell(News(versions, gone, select_head(connection).position, has_pending(connection)))
