"""The thread that writes: it commits all waiting appends in one transaction (group commit)."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby

import psycopg
import structlog

from agent_runtime.domain.commits import TaskChange
from agent_runtime.domain.errors import AgentRuntimeError, ConfigurationError, ConflictError, StoreUnavailableError
from agent_runtime.storage.base import TakeCheckpoint
from agent_runtime.storage.postgres.appends import Append, write_appends
from agent_runtime.storage.postgres.commits import CommitLog, has_pending, take_pending
from agent_runtime.storage.postgres.connecting import (
    Connection,
    Database,
    is_connection_lost,
    make_unavailable_error,
)
from agent_runtime.storage.postgres.locks import CHAIN, try_lock
from agent_runtime.storage.postgres.session import Session, SessionOpener
from agent_runtime.storage.writing import Job, Outcome, WritingThread, Written

log = structlog.get_logger(__name__)

RETRY_S = 10.0
"""How long to try to reach a server that was there a moment ago. A restart of it usually takes less."""

_PAUSE_S = 0.25

Work = Append | TakeCheckpoint | Callable[[Connection], TaskChange | None]
"""What to write. A function returns the change of a journal if it made one."""


class Writer(WritingThread[Work]):
    """Writes appends that wait together in one transaction, and each other job in its own. `start` raises as
    `SessionOpener.open_first`.

    `forget` is called on the event loop before anything of a new session is told, if others may have written since the
    last one.

    A transaction whose connection was lost is tried again in a new session, for a limited time. Each append knows the
    hash that its last record would have, so it is never written twice.
    """

    def __init__(
        self,
        database: Database,
        *,
        exclusive: bool,
        advance: Callable[[int], None] = lambda _: None,
        forget: Callable[[], None] = lambda: None,
        retry_s: float = RETRY_S,
    ) -> None:
        super().__init__(advance)
        self._sessions = SessionOpener(database, exclusive=exclusive)
        self._log = CommitLog(exclusive=exclusive)
        self._forget = forget
        self._retry_s = retry_s
        self._session: Session | None = None
        self.channel = ""
        """The channel on which the processes that share this database notify each other."""
        self.pid = 0
        """The server's process of the session that writes; its notices are this process's own."""

    @property
    def leads(self) -> bool:
        """Return whether this process writes the chain of commits."""
        return self._log.leads

    async def tend_chain(self) -> bool:
        """Put what is pending into the chain, if this process writes it or nobody does. Return whether some is left.

        Raises: StoreUnavailableError.
        """
        left, tend = self._make_tending()
        await self.write(tend)
        return left[0]

    def tend_chain_soon(self, then: Callable[[bool], None]) -> None:
        """Do the same without waiting for it. Calls `then` with the answer; with True after a failure."""

        def tell(done: asyncio.Future[None]) -> None:
            then(left[0] if not done.cancelled() and done.exception() is None else True)

        if self._open:
            left, tend = self._make_tending()
            self._submit(tend).add_done_callback(tell)

    def _make_tending(self) -> tuple[list[bool], Callable[[Connection], None]]:
        left = [False]

        def tend(connection: Connection) -> None:
            left[0] = self._lead_if_needed(connection)

        return left, tend

    # What follows runs in the thread.

    def _open_database(self) -> int:
        self._sessions.open_first(self._stopping, self._adopt)
        return self._log.head.position

    def _write_jobs(self, jobs: list[Job[Work]]) -> Iterator[Written[Work]]:
        return map(self._commit, _group(jobs))

    def _commit(self, jobs: list[Job[Work]]) -> Written[Work]:
        while True:
            try:
                outcomes = self._write(self._connect(), jobs)
            except ConfigurationError as error:  # such as: another process took over during an outage
                self._discard()
                return self._fail(jobs, StoreUnavailableError(f"The store cannot be used now. {error}"))
            except psycopg.Error as error:
                if self._session is None or is_connection_lost(self._session.connection, error):
                    self._discard()
                    if self._goes_on_trying(error):
                        continue
                    return self._fail(jobs, error)
                return self._try_alone(jobs, error)
            except Exception as error:  # noqa: BLE001 - a job may fail in any way; none may end the thread
                return self._try_alone(jobs, error)
            if any(refusal is None for _, refusal in outcomes):
                self._note_success()
            return outcomes, self._log.confirm()

    def _try_alone(self, jobs: list[Job[Work]], error: Exception) -> Written[Work]:
        """Roll back, and try each job again by itself; fail if there is only one."""
        self._roll_back()
        if len(jobs) == 1:
            return self._fail(jobs, error)
        alone = [self._commit([job]) for job in jobs]
        return [outcome for tried, _ in alone for outcome in tried], max(position for _, position in alone)

    def _write(self, connection: Connection, jobs: list[Job[Work]]) -> list[Outcome[Work]]:
        """Write the jobs in one transaction. Raises: psycopg.Error, and what a job raises that is not a refusal."""
        self._log.reset()
        appends = [job.work for job in jobs if isinstance(job.work, Append)]
        if appends:
            return list(zip(jobs, write_appends(connection, appends, self._log), strict=True))
        (job,) = jobs
        return [(job, self._write_other(connection, job.work))]

    def _write_other(self, connection: Connection, work: Work) -> AgentRuntimeError | None:
        if isinstance(work, TakeCheckpoint):  # it sees one state: what it names and what the chain has are the same
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self._log.take_checkpoint(connection, work)
        elif not isinstance(work, Append):
            connection.execute("BEGIN")
            try:
                change = work(connection)
            except AgentRuntimeError as refusal:
                connection.execute("ROLLBACK")
                return refusal
            pending = take_pending(connection) if self._log.takes_pending else ()
            self._log.add(connection, [change] if change else [], pending)
        connection.execute("COMMIT")
        return None

    def _lead_if_needed(self, connection: Connection) -> bool:
        """Write the chain from now on if something is pending and nobody writes it. Return whether others must."""
        if self._log.leads or not has_pending(connection):
            return False
        if not try_lock(connection, CHAIN):
            return True
        log.info("chain_taken_over")
        self._log.begin(connection, self.channel, leads=True)
        self._log.reset()
        return False

    def _connect(self) -> Connection:
        if self._session is None:
            self._adopt(self._sessions.open())
        return self._session.connection  # type: ignore[union-attr]

    def _adopt(self, session: Session) -> None:
        self._session = session
        self.channel, self.pid = session.channel, session.connection.info.backend_pid
        if self._log.begin(session.connection, session.channel, leads=session.leads):
            self._call_on_loop(self._forget)
        if session.leads and has_pending(session.connection):  # left behind by processes that are gone
            session.connection.execute("BEGIN")
            self._log.add(session.connection, [], take_pending(session.connection))
            session.connection.execute("COMMIT")
            self._log.confirm()

    def _roll_back(self) -> None:
        if self._session is not None:
            try:
                self._session.connection.execute("ROLLBACK")
            except psycopg.Error:
                self._discard()

    def _close_database(self) -> None:
        self._discard()

    def _discard(self) -> None:
        """Close the connection, so that the next transaction opens a new one."""
        session, self._session = self._session, None
        self._log.leads = False  # the lock is gone with the session
        if session is not None:
            with suppress(psycopg.Error):
                session.connection.close()

    def _goes_on_trying(self, error: psycopg.Error) -> bool:
        """Return, after a pause, whether another try may help and the time for that is not over."""
        self._note_failure(_describe(error))
        lasts = time.monotonic() - (self._failing_since or 0)
        pause = _PAUSE_S if lasts > _PAUSE_S else _PAUSE_S / 10
        return lasts < self._retry_s and not self._stopping.wait(pause)

    def _fail(self, jobs: list[Job[Work]], error: Exception) -> Written[Work]:
        if isinstance(error, psycopg.IntegrityError):  # the store works; its content is not the expected one
            reason = error.diag.message_primary
            failure: Exception = ConflictError(f"The stored task is not as expected: {reason}. Read it again.")
        elif isinstance(error, psycopg.Error | StoreUnavailableError):
            self._note_failure(_describe(error))
            failure = error if isinstance(error, StoreUnavailableError) else make_unavailable_error(error)
            failure.__cause__ = error if failure is not error else None
        else:
            failure = error
        return [(job, failure) for job in jobs], 0


def _describe(error: Exception) -> str:
    """Return the message of an error on one line; the server's have several."""
    return " ".join(str(error).split())


def _group(jobs: list[Job[Work]]) -> Iterator[list[Job[Work]]]:
    """Yield the jobs of each transaction: appends that follow each other share one."""
    for are_appends, group in groupby(jobs, key=lambda job: isinstance(job.work, Append)):
        if are_appends:
            yield list(group)
        else:
            yield from ([job] for job in group)
