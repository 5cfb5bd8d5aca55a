"""Reads the feed of all tasks, for every store: stored pages first, then live without polling."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

from agent_runtime.domain.chain import format_time
from agent_runtime.domain.commits import Commit, count_entries
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.feed import (
    FeedCheckpoint,
    FeedEntry,
    FeedPage,
    FeedPosition,
    ReadChange,
    commit_entries,
    starts_anew,
)
from agent_runtime.storage.base import utc_now
from agent_runtime.storage.followers import Watch

PAGE_ENTRIES = 100
PAGE_DATA_BYTES = 256 * 1024
PAGE_COMMITS = 1000
"""The sizes after which a page takes nothing more. They bound the memory for a slow reader."""

_BEGINNING = FeedPosition(0, 0)


def read_page(
    seen: FeedPosition | None, first: Commit | None, rows_from: Callable[[int], Iterator[Commit]], read: ReadChange
) -> FeedPage:
    """Return the page after `seen`. `first` is the store's oldest commit; `rows_from` returns the commits from a
    position.

    Deletions and dropped rows in the meantime do no harm: what is gone is left out, and the next page continues.
    """
    if first is None:
        return FeedPage((), seen or _BEGINNING, more=False)
    anew = starts_anew(seen, first)
    seen = FeedPosition(first.position, -1) if anew or seen is None else seen
    entries: list[FeedEntry] = []
    size = 0
    for number, commit in enumerate(rows_from(seen.commit)):
        if number == PAGE_COMMITS:
            return FeedPage(tuple(entries), seen, more=True)
        after = seen.entry if commit.position == seen.commit else 0
        begins = commit.position == first.position and (anew or commit.position == seen.commit)
        for entry in commit_entries(commit, after, read, begins=begins):
            if len(entries) == PAGE_ENTRIES or size >= PAGE_DATA_BYTES:
                return FeedPage(tuple(entries), seen, more=True)
            entries.append(entry)
            seen = entry.position
            size += len(entry.content.data) if isinstance(entry.content, EventRecord) else 0
        seen = FeedPosition(commit.position, max(after, count_entries(commit)))
    return FeedPage(tuple(entries), seen, more=False)


_OUTAGE_PAUSE_S = 1.0


async def follow_feed(
    read: Callable[[FeedPosition | None], Awaitable[FeedPage]],
    commits: Watch,
    seen: FeedPosition | None,
    idle_s: float | None,
    *,
    announced: bool = False,
) -> AsyncGenerator[tuple[FeedEntry, ...], None]:
    """Yield the pages after `seen` as the store grows, until it closes; see `TaskStore.subscribe`.

    If `announced`, yield `seen` itself first, as a checkpoint.
    """
    if announced and seen is not None:
        yield (FeedEntry(seen, FeedCheckpoint(restarts=False, at=format_time(utc_now()))),)
    while True:
        try:
            page = await read(seen)
        except StoreUnavailableError:
            if commits.gone:
                return
            if idle_s is None:
                raise
            yield ()
            await asyncio.sleep(_OUTAGE_PAUSE_S)
            continue
        if page.entries:
            yield page.entries
        seen = page.seen if page.seen.commit else None
        if page.more:
            continue
        try:
            async with asyncio.timeout(idle_s):
                await commits.wait_beyond(page.seen.commit)
        except TimeoutError:
            yield ()
        if commits.gone:
            return
