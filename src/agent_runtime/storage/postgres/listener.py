"""The thread that hears what other processes have committed.

It never polls: it opens a lost connection again, and reads from the tables what it has missed meanwhile.
"""

import time
from collections.abc import Callable, Collection
from threading import Event

import structlog
from psycopg import sql

from agent_runtime.storage.postgres.commits import has_pending, select_head
from agent_runtime.storage.postgres.connecting import Connection, Database
from agent_runtime.storage.postgres.listings import select_news
from agent_runtime.storage.postgres.notice_thread import NoticeThread
from agent_runtime.storage.postgres.notices import News, read_payload
from agent_runtime.storage.postgres.rows import select_not_cancelled, select_versions

log = structlog.get_logger(__name__)

CATCH_UP_S = 30.0
"""How often the tables are looked at without a notice: one that got lost delays nobody for longer."""


class Listener(NoticeThread):
    """Hears the notices of other processes. `tell` is called in its thread.

    `followed` returns the ids of the tasks that somebody follows here, `awaited` those whose cancellation is awaited,
    `own_pid` the server's process whose notices are this process's own.
    """

    def __init__(
        self,
        database: Database,
        channel: str,
        tell: Callable[[News], None],
        followed: Callable[[], Collection[str]],
        awaited: Callable[[], Collection[str]],
        own_pid: Callable[[], int],
    ) -> None:
        super().__init__(database, "agent-runtime-listener", read_only=True)
        self._channel = channel
        self._tell = tell
        self._followed = followed
        self._awaited = awaited
        self._own_pid = own_pid
        self._ready = Event()
        self._looked_at = time.monotonic()
        self._hears = False

    @property
    def hears(self) -> bool:
        """Return whether its connection is open, as far as is known."""
        return self._hears

    @property
    def age_s(self) -> float:
        """The seconds since the listener last heard, or looked, what others have committed."""
        return time.monotonic() - self._looked_at

    def start(self) -> None:
        """Start listening. Return once notices are heard, or cannot be for now."""
        super().start()
        self._ready.wait()

    # What follows runs in the thread.

    def _begin(self, connection: Connection, *, again: bool) -> None:
        connection.add_notify_handler(lambda notice: self._hear(notice.pid, notice.payload))
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        if again:
            log.info("listener_recovered")

    def _serve(self, connection: Connection) -> None:
        """Tell what is new until the connection is lost or `stop` is called. Raises: psycopg.Error."""
        with self._select(connection) as selector:
            self._catch_up(connection)
            self._hears = True
            self._ready.set()
            while not self._stopping.is_set():
                if selector.select(CATCH_UP_S):
                    self._take(connection)
                    self._looked_at = time.monotonic()
                else:
                    self._catch_up(connection)

    def _note_lost(self, error: str) -> None:
        log.warning("listener_lost", error=error)

    def _end(self) -> None:
        self._hears = False
        self._ready.set()

    def _take(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while notice := connection.pgconn.notifies():
            self._hear(notice.be_pid, notice.extra.decode())

    def _hear(self, pid: int, payload: str) -> None:
        if pid != self._own_pid():
            self._tell(read_payload(payload))

    def _catch_up(self, connection: Connection) -> None:
        """Tell what the tables say of the tasks that are followed or awaited here, of the chain and the catalogue."""
        followed, awaited = self._followed(), self._awaited()
        versions = select_versions(connection, followed)
        gone = frozenset(followed) - versions.keys()
        cancelled = frozenset(awaited) - select_not_cancelled(connection, awaited) if awaited else frozenset()
        listings = list(select_news(connection))
        numbers = {key: number for key, number, _ in listings}
        wanted = frozenset(key for key, _, is_wanted in listings if is_wanted)
        position, pending = select_head(connection).position, has_pending(connection)
        self._tell(News(versions, gone, cancelled, position, pending, numbers, wanted))
        self._looked_at = time.monotonic()
