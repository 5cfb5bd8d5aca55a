"""The thread that passes on to other processes what models write and servers report, for followers of a task there.

Nothing is sent for a task that nobody follows elsewhere, nor while this process is the only one. What cannot be sent
now is dropped: the journal has all that counts.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import suppress
from math import inf
from threading import Lock

import structlog
from psycopg import sql

from agent_runtime.live.progress import MOST_CHARACTERS, Piece, coalesce
from agent_runtime.storage.postgres.connecting import Connection, Database, find_schema, make_channel
from agent_runtime.storage.postgres.locks import count_sharers
from agent_runtime.storage.postgres.notice_thread import NoticeThread
from agent_runtime.storage.postgres.notices import notify
from agent_runtime.storage.postgres.progress_notices import HERE, make_said, make_wants, read_payload

log = structlog.get_logger(__name__)

_PERIOD_S = 0.1
"""The shortest time between two notices about one task."""

_AGAIN_S = 30.0
"""How often a process repeats which tasks are followed there, and looks whether there are others."""

_WANTED_S = 75.0
"""How long a task counts as followed elsewhere after the last notice that said so."""

_MOST_TASKS = 10_000


class _Outbox:
    """The pieces of a task that are not sent yet."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.size = 0
        self.not_before = 0.0

    def push(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.size += len(piece.text)
        while self.size > MOST_CHARACTERS and len(self.pieces) > 1:
            self.size -= len(self.pieces.pop(0).text)


class ProgressRelay(NoticeThread):
    """A `live.progress.Relay` on a connection and a channel of its own.

    `hear` is called in its thread with what other processes say. `followed` returns the ids of the tasks that somebody
    follows here.
    """

    def __init__(
        self, database: Database, hear: Callable[[str, Piece], None], followed: Callable[[], Collection[str]]
    ) -> None:
        super().__init__(database, "agent-runtime-progress")
        self._hear = hear
        self._followed = followed
        self._lock = Lock()
        self._outboxes: dict[str, _Outbox] = {}
        self._new: set[str] = set()
        """Tasks that somebody has begun to follow here."""
        self._wanted: OrderedDict[str, float] = OrderedDict()
        """Until when a task counts as followed elsewhere."""
        self._has_peers = False
        self._woken = False
        self._connected = False
        self._channel = ""

    def say(self, task_id: str, piece: Piece) -> None:
        """Pass a piece on, if the task is followed elsewhere. Any thread may call it."""
        if self._wanted.get(task_id, 0.0) < time.monotonic() or not self._connected:
            return
        with self._lock:
            if task_id not in self._outboxes and len(self._outboxes) >= _MOST_TASKS:
                return
            self._outboxes.setdefault(task_id, _Outbox()).push(piece)
            self._wake_up()

    def follow(self, task_id: str) -> None:
        """Ask the others for the progress of a task. Any thread may call it."""
        if self._has_peers:
            with self._lock:
                self._new.add(task_id)
                self._wake_up()

    def _wake_up(self) -> None:
        if not self._woken and not self._stopping.is_set():
            self._woken = True
            os.write(self._waker, b"x")

    # What follows runs in the thread.

    def _begin(self, connection: Connection, *, again: bool) -> None:  # noqa: ARG002 - it begins always alike
        """Listen, and have the others say again which tasks are followed there."""
        self._channel = f"{make_channel(find_schema(connection))}_live"
        own = connection.info.backend_pid
        connection.add_notify_handler(lambda notice: self._take(notice.pid == own, notice.payload))
        connection.execute("SET synchronous_commit = off")  # nothing here is worth waiting for a disk
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
        self._has_peers = count_sharers(connection) > 1
        self._notify(connection, HERE)
        self._connected = True

    def _serve(self, connection: Connection) -> None:
        """Take and send notices until the connection is lost or `stop` is called. Raises: psycopg.Error."""
        own = connection.info.backend_pid
        with self._select(connection) as selector:
            ask_at = time.monotonic()
            while not self._stopping.is_set():
                now = time.monotonic()
                if now >= ask_at:
                    ask_at = now + _AGAIN_S
                    self._ask(connection)
                next_at = self._send(connection)
                for key, _ in selector.select(max(0.0, min(ask_at, next_at) - time.monotonic())):
                    if key.fd == self._wake:
                        with self._lock:
                            self._woken = False
                        os.read(self._wake, 4096)
                connection.pgconn.consume_input()
                while notice := connection.pgconn.notifies():
                    self._take(notice.be_pid == own, notice.extra.decode())

    def _note_lost(self, error: str) -> None:
        log.warning("progress_relay_lost", error=error)

    def _end(self) -> None:
        self._connected = False
        with self._lock:
            self._outboxes.clear()

    def _ask(self, connection: Connection) -> None:
        """Look whether there are other processes, and tell them which tasks are followed here."""
        self._has_peers = count_sharers(connection) > 1
        if self._has_peers:
            self._want(connection, self._followed())

    def _want(self, connection: Connection, task_ids: Collection[str]) -> None:
        for payload in make_wants(task_ids):
            self._notify(connection, payload)

    def _send(self, connection: Connection) -> float:
        """Send what is due. Return when something will be due next, by `time.monotonic`."""
        now = time.monotonic()
        with self._lock:
            new, self._new = self._new, set()
            due = {task_id: box.pieces for task_id, box in self._outboxes.items() if box.not_before <= now}
            for task_id, pieces in due.items():
                if pieces:
                    self._outboxes[task_id] = _Outbox()
                    self._outboxes[task_id].not_before = now + _PERIOD_S
                else:
                    del self._outboxes[task_id]
        self._want(connection, new)
        for task_id, pieces in due.items():
            if pieces:
                payload, left = make_said(task_id, coalesce(pieces))
                self._notify(connection, payload)
                self._put_back(task_id, left)
        with self._lock:
            return min((box.not_before for box in self._outboxes.values()), default=inf)

    def _put_back(self, task_id: str, pieces: list[Piece]) -> None:
        with self._lock:
            box = self._outboxes.get(task_id)
            if box is not None and pieces:
                newer, box.pieces, box.size = box.pieces, [], 0
                for piece in [*pieces, *newer]:
                    box.push(piece)

    def _notify(self, connection: Connection, payload: str) -> None:
        notify(connection, self._channel, payload)

    def _take(self, is_own: bool, payload: str) -> None:  # noqa: FBT001 - a fact about the payload
        if is_own:
            return
        notice = read_payload(payload)
        if notice.kind == "here":
            self._has_peers = True
            with self._lock:
                self._new.update(self._followed())
        elif notice.kind == "want":
            until = time.monotonic() + _WANTED_S
            for task_id in notice.task_ids:
                self._wanted[task_id] = until
                self._wanted.move_to_end(task_id)
            while len(self._wanted) > _MOST_TASKS:
                with suppress(KeyError):
                    self._wanted.popitem(last=False)
        for piece in notice.pieces:
            self._hear(notice.task_ids[0], piece)
