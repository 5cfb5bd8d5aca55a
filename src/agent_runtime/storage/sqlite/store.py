"""The task store of one process: a SQLite file in its data directory."""

import asyncio
import sqlite3
from functools import partial
from pathlib import Path

from agent_runtime.domain.commits import Change
from agent_runtime.services.ports import AppendObserver
from agent_runtime.storage.base import Clock, Draft, TakeCheckpoint, utc_now
from agent_runtime.storage.cached_store import CACHE_BYTES, CachedStore
from agent_runtime.storage.sqlite import commits, images, journals, planning, rows, starts, states
from agent_runtime.storage.sqlite.database_file import DatabaseFile
from agent_runtime.storage.sqlite.readers import Readers
from agent_runtime.storage.sqlite.writer import Writer
from agent_runtime.storage.statements import Statements

_STATEMENTS: Statements[sqlite3.Connection] = Statements(rows, journals, commits, starts, planning, states, images)


class SqliteStore(CachedStore[sqlite3.Connection]):
    """A `TaskStore` in one SQLite file, used as `async with SqliteStore(path) as store`.

    One thread commits the writes, many at a time, with an fsync (G1). Tasks in use are cached and need neither a
    statement nor a thread, so no other process may write the file; see `owner`. Entering raises as `open_database`.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock = utc_now,
        cache_bytes: int = CACHE_BYTES,
        observe: AppendObserver | None = None,
    ) -> None:
        super().__init__(_STATEMENTS, clock=clock, cache_bytes=cache_bytes, observe=observe)
        self._file = DatabaseFile(path)
        self._writer = Writer(self._file, advance=self._commits.advance)
        self._readers = Readers(self._file)

    def _make_append(self, draft: Draft, epoch: int | None) -> partial[Change]:
        if draft.records[0].seq == 1:
            return partial(rows.insert_task, task=draft.task, records=draft.records)
        return partial(rows.update_task, task=draft.task, records=draft.records, epoch=epoch, verify=draft.verifies)

    async def checkpoint(self, *, drop: bool = False) -> None:
        """See `TaskStore.checkpoint`."""
        await self._writer.write(lambda _: TakeCheckpoint(drop))

    async def check(self) -> None:
        """See `TaskStore.check`."""
        if self._is_proven:
            await asyncio.to_thread(self._file.check)
        else:
            await super().check()
