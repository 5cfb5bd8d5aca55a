"""The queue of jobs that the replicas on one PostgreSQL database share, in the tables of procrastinate.

A job is "run this task". Where procrastinate's own statements do not ask whose job it is, or fail where a job exists
already, the statements here do.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as Found
from psycopg import sql
from psycopg_pool import AsyncConnectionPool

from agent_runtime.domain.entries import Entries
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.jobs import Job
from agent_runtime.storage.postgres.connecting import SERVER_KEEPALIVES, Database, make_unavailable_error
from agent_runtime.storage.postgres.locks import SWEEPS, TRY_LOCK

T = TypeVar("T")

_ALL = "tasks"
"""The queue from which every worker takes jobs. Each has one of its own beside it. Nobody takes jobs from `later`, the
queue of the tasks that wait for the end of an outage: they move when they are due.
"""

_MOST_CONNECTIONS = 4
_PATIENCE_S = 5.0
"""How long to wait for a connection."""

# Without a conflict, because an error would end the transaction and fill the log of the server.
_DEFER: LiteralString = """
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
SELECT %(queue)s, 'run', task_id, task_id, jsonb_build_object('task_id', task_id)
FROM unnest(%(task_ids)s::text[]) task_id
"""
_DEFER_NEW: LiteralString = f"{_DEFER} ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING"
_DEFER_HERE: LiteralString = f"""
{_DEFER} ON CONFLICT (queueing_lock) WHERE status = 'todo' DO UPDATE SET queue_name = excluded.queue_name
"""
_DEFER_MISSING: LiteralString = f"""
{_DEFER}
WHERE NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'doing' AND lock = task_id)
  AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = 'later:' || task_id)
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING RETURNING lock AS task_id
"""  # noqa: S608 - made of constants
_DEFER_LATER: LiteralString = """
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args, scheduled_at)
VALUES ('later', 'run', 'later:' || %(task_id)s::text, 'later:' || %(task_id)s::text,
        jsonb_build_object('task_id', %(task_id)s::text, 'queue', %(queue)s::text),
        now() + make_interval(secs => %(pause_s)s))
ON CONFLICT (queueing_lock) WHERE status = 'todo'
    DO UPDATE SET scheduled_at = excluded.scheduled_at, args = excluded.args
"""
_MOVE_DUE: LiteralString = """
WITH due AS (
    DELETE FROM procrastinate_jobs WHERE queue_name = 'later' AND status = 'todo' AND scheduled_at <= now()
    RETURNING args ->> 'task_id' AS task_id, args ->> 'queue' AS queue_name)
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, queueing_lock, args)
SELECT queue_name, 'run', task_id, task_id, jsonb_build_object('task_id', task_id) FROM due
ON CONFLICT (queueing_lock) WHERE status = 'todo' DO NOTHING
"""
_SELECT_NEXT_DUE: LiteralString = """
SELECT extract(epoch FROM min(scheduled_at) - now())::float8 AS seconds
FROM procrastinate_jobs WHERE queue_name = 'later' AND status = 'todo'
"""
# Procrastinate's function takes one job. Each call sees what the one before has taken.
_FETCH: LiteralString = """
WITH taken AS MATERIALIZED (
    SELECT procrastinate_fetch_job_v2(%(queues)s::varchar[], %(worker)s) AS job FROM generate_series(1, %(most)s))
SELECT (job).id, (job).args ->> 'task_id' AS task_id FROM taken WHERE (job).id IS NOT NULL
"""
_BEAT: LiteralString = "UPDATE procrastinate_workers SET last_heartbeat = now() WHERE id = %(worker)s RETURNING id"
# Whoever may take the next job of the same task has looked in vain while this one was held.
_FINISH: LiteralString = """
WITH done AS (
    DELETE FROM procrastinate_jobs WHERE id = ANY(%(jobs)s) AND worker_id = %(worker)s AND status = 'doing'
    RETURNING lock)
SELECT pg_notify('procrastinate_queue_v1#' || queue_name, '') FROM procrastinate_jobs
WHERE status = 'todo' AND queueing_lock IN (SELECT lock FROM done)
"""
# One that waits already will do the work of one that is given back.
_GIVE_BACK: LiteralString = """
WITH held AS (
    SELECT id, queueing_lock FROM procrastinate_jobs
    WHERE status = 'doing' AND worker_id = %(worker)s AND id = ANY(%(jobs)s) FOR UPDATE),
doubled AS (
    DELETE FROM procrastinate_jobs USING held
    WHERE procrastinate_jobs.id = held.id AND EXISTS (
        SELECT 1 FROM procrastinate_jobs other
        WHERE other.status = 'todo' AND other.queueing_lock = held.queueing_lock)
    RETURNING procrastinate_jobs.id)
UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL, attempts = attempts + 1,
    scheduled_at = NULL
FROM held WHERE procrastinate_jobs.id = held.id AND held.id NOT IN (SELECT id FROM doubled)
"""
_INHERIT: LiteralString = """
UPDATE procrastinate_jobs SET worker_id = %(worker)s WHERE status = 'doing' AND worker_id IS NULL
RETURNING id, args ->> 'task_id' AS task_id
"""
_NOTIFY: LiteralString = "SELECT pg_notify('procrastinate_queue_v1#tasks', '')"
_MOVE_ORPHANS: LiteralString = """
UPDATE procrastinate_jobs SET queue_name = 'tasks'
WHERE status = 'todo' AND queue_name NOT IN ('tasks', 'later') AND NOT EXISTS (
    SELECT 1 FROM procrastinate_workers WHERE 'worker:' || procrastinate_workers.id = queue_name)
"""
# One that was declared dead is not there any more, and is not announced again.
_ANNOUNCE: LiteralString = """
INSERT INTO workers (id, host, pid, role, entries)
SELECT id, %(host)s, %(pid)s, %(role)s, %(entries)s::jsonb FROM procrastinate_workers WHERE id = %(worker)s FOR SHARE
ON CONFLICT (id) DO UPDATE SET entries = excluded.entries
"""
_FIND_WORKER: LiteralString = """
SELECT workers.id FROM workers JOIN procrastinate_workers USING (id)
WHERE workers.entries @> %(needed)s::jsonb AND id IS DISTINCT FROM %(but)s
  AND last_heartbeat > clock_timestamp() - make_interval(secs => %(silent_s)s)
ORDER BY random() LIMIT 1
"""


class PostgresJobQueue:
    """A `JobQueue` in a PostgreSQL database, used as `async with`. Entering connects to nothing."""

    def __init__(self, database: Database) -> None:
        self._parameters: dict[str, Any] = {**database.read_parameters(), "autocommit": True}
        self._pool: AsyncConnectionPool = AsyncConnectionPool(
            kwargs=self._parameters,
            min_size=1,
            max_size=_MOST_CONNECTIONS,
            open=False,
            timeout=_PATIENCE_S,
            reconnect_timeout=_PATIENCE_S,
            configure=_keep_alive,
        )
        self._app = App(connector=PsycopgConnector())
        self._jobs = self._app.job_manager

    async def __aenter__(self) -> Self:
        await self._pool.open()
        await self._app.open_async(self._pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._app.close_async()
        await self._pool.close()

    async def defer(self, task_ids: Collection[str], worker: int | None = None) -> None:
        """See `JobQueue.defer`."""
        statement = _DEFER_NEW if worker is None else _DEFER_HERE
        await self._execute(statement, queue=_name_queue(worker), task_ids=[*task_ids])

    async def defer_missing(self, task_ids: Collection[str]) -> list[str]:
        """See `JobQueue.defer_missing`. Jobs for a worker that is gone become jobs for all."""
        await self._execute(_MOVE_ORPHANS)
        rows = await self._select(_DEFER_MISSING, queue=_ALL, task_ids=[*task_ids])
        return [row["task_id"] for row in rows]

    async def defer_later(self, task_id: str, pause_s: float, worker: int | None = None) -> None:
        """See `JobQueue.defer_later`."""
        await self._execute(_DEFER_LATER, task_id=task_id, queue=_name_queue(worker), pause_s=pause_s)

    async def move_due(self) -> float | None:
        """See `JobQueue.move_due`."""
        await self._execute(_MOVE_DUE)
        (row,) = await self._select(_SELECT_NEXT_DUE)
        return None if row["seconds"] is None else max(0.0, row["seconds"])

    async def register(self) -> int:
        """See `JobQueue.register`."""
        return await _translate(self._jobs.register_worker())

    async def announce(self, worker: int, role: str, entries: Entries) -> None:
        """See `JobQueue.announce`."""
        place = {"host": socket.gethostname(), "pid": os.getpid()}
        await self._execute(_ANNOUNCE, worker=worker, role=role, entries=entries.model_dump_json(), **place)

    async def find_worker(self, needed: Entries, but: int | None, silent_s: float) -> int | None:
        """See `JobQueue.find_worker`."""
        wanted = needed.model_dump_json(exclude_none=True)
        rows = await self._select(_FIND_WORKER, needed=wanted, but=but, silent_s=silent_s)
        return rows[0]["id"] if rows else None

    async def unregister(self, worker: int) -> None:
        """See `JobQueue.unregister`."""
        await _translate(self._jobs.unregister_worker(worker))

    async def beat(self, worker: int) -> bool:
        """See `JobQueue.beat`."""
        return bool(await self._select(_BEAT, worker=worker))

    async def fetch(self, worker: int, most: int, *, only_own: bool) -> list[Job]:
        """See `JobQueue.fetch`."""
        queues = [_name_queue(worker)] if only_own else [_name_queue(worker), _ALL]
        rows = await self._select(_FETCH, queues=queues, worker=worker, most=most)
        return [Job(row["id"], row["task_id"]) for row in rows]

    async def finish(self, worker: int, jobs: Collection[Job]) -> None:
        """See `JobQueue.finish`."""
        await self._execute(_FINISH, worker=worker, jobs=[job.id for job in jobs])

    async def give_back(self, worker: int, jobs: Collection[Job]) -> None:
        """See `JobQueue.give_back`."""
        await self._execute(_GIVE_BACK, worker=worker, jobs=[job.id for job in jobs])
        await self._execute(_NOTIFY)

    async def list_held(self, worker: int) -> list[Job]:
        """See `JobQueue.list_held`."""
        return [*map(_read_job, await _translate(self._jobs.list_jobs_async(status="doing", worker_id=worker)))]

    async def bury(self, worker: int, silent_s: float) -> list[Job]:
        """See `JobQueue.bury`. The row of a worker is deleted, or its heartbeat is updated, never both."""
        if await _translate(self._jobs.prune_stalled_workers(silent_s)):
            await self._execute(_MOVE_ORPHANS)
            await self._execute(_NOTIFY)
        return [Job(row["id"], row["task_id"]) for row in await self._select(_INHERIT, worker=worker)]

    @asynccontextmanager
    async def open_session(self, worker: int) -> AsyncIterator["QueueSession"]:
        """See `JobQueue.open_session`."""
        try:
            async with await psycopg.AsyncConnection.connect(**self._parameters) as connection:
                await _keep_alive(connection)
                for queue in (_ALL, _name_queue(worker)):
                    channel = sql.Identifier(f"procrastinate_queue_v1#{queue}")
                    await connection.execute(sql.SQL("LISTEN {}").format(channel))
                yield QueueSession(connection)
        except psycopg.Error as error:
            raise make_unavailable_error(error) from error

    async def _execute(self, statement: LiteralString, **values: Any) -> None:
        await _translate(self._app.connector.execute_query_async(statement, **values))

    async def _select(self, statement: LiteralString, **values: Any) -> list[dict[str, Any]]:
        return await _translate(self._app.connector.execute_query_all_async(statement, **values))


class QueueSession:
    """See `JobSession`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._missed = False
        connection.add_notify_handler(self._note_missed)  # called for those that come with an answer

    def _note_missed(self, _: psycopg.Notify) -> None:
        self._missed = True

    async def listen(self, tell: Callable[[], None], seconds: float) -> None:
        """See `JobSession.listen`."""
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        server = self._connection.pgconn
        if self._missed:
            self._missed = False
            tell()
        descriptor = server.socket  # kept, because a lost connection does not tell it any more
        loop.add_reader(descriptor, readable.set)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await readable.wait()
                    readable.clear()
                    server.consume_input()
                    if server.notifies():
                        while server.notifies():
                            pass
                        tell()
        except TimeoutError:
            pass
        except psycopg.Error as error:
            raise make_unavailable_error(error) from error
        finally:
            loop.remove_reader(descriptor)

    async def elect(self) -> bool:
        """See `JobSession.elect`. The session holds the advisory lock `SWEEPS`."""
        try:
            cursor = await self._connection.execute(TRY_LOCK, (SWEEPS,))
            return await cursor.fetchone() == (True,)
        except psycopg.Error as error:
            raise make_unavailable_error(error) from error


def _name_queue(worker: int | None) -> str:
    return _ALL if worker is None else f"worker:{worker}"


def _read_job(found: Found) -> Job:
    return Job(found.id or 0, str(found.task_kwargs["task_id"]))


async def _keep_alive(connection: psycopg.AsyncConnection[Any]) -> None:
    for statement in SERVER_KEEPALIVES:
        await connection.execute(statement)


async def _translate(work: Awaitable[T]) -> T:
    try:
        return await work
    except ConnectorException as error:
        cause = error.__cause__
        if isinstance(cause, psycopg.Error):
            raise make_unavailable_error(cause) from error
        raise StoreUnavailableError(f"The queue of jobs cannot be used now: {error}. Try again later.") from error
