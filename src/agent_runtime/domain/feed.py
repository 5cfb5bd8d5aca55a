"""The feed of all tasks: the entries of each commit, in one order, and the cursors between them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent_runtime.domain.commits import (
    CHECKPOINT,
    Change,
    Commit,
    Deletion,
    TaskChange,
    count_entries,
    read_changes,
    read_checkpoint,
)
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.domain.events import EventRecord

NEWEST = "newest"
"""Stands for the cursor of the newest entry. A feed after it begins with a checkpoint and has only what comes later."""

_CURSOR = re.compile(r"([1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})")


class FeedPosition(NamedTuple):
    """The position of an entry: that of its commit, and the entry's number in it. As text (`12.3`) it is a cursor.

    Entries count from 1; number 0 is the checkpoint with which a feed begins. Entries keep their numbers when tasks are
    deleted.
    """

    commit: int
    entry: int

    def __str__(self) -> str:
        return f"{self.commit}.{self.entry}"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A task was deleted. `last`: the number of its last event. `at`: RFC 3339 in UTC with microseconds."""

    task_id: str
    last: int
    at: str


@dataclass(frozen=True, slots=True)
class FeedCheckpoint:
    """A checkpoint.

    `restarts`: earlier entries were dropped or never existed. The reader must discard its state; all events of every
    task that existed at the checkpoint follow. Otherwise the reader can ignore the checkpoint.
    """

    restarts: bool
    at: str


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """One entry of the feed. `position` is the cursor from which to continue after it."""

    position: FeedPosition
    content: EventRecord | Tombstone | FeedCheckpoint


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed. `seen`: the position to continue from. `more`: the next page may already have entries."""

    entries: tuple[FeedEntry, ...]
    seen: FeedPosition
    more: bool


ReadChange = Callable[[Change], Sequence[EventRecord]]
"""Returns the records of a change; none if the task was deleted or its journal was tampered with."""


def end_of(commit: Commit | None) -> FeedPosition | None:
    """Return the position after all entries of a commit; None without one. Raises: ValueError if it is unreadable."""
    return None if commit is None else FeedPosition(commit.position, count_entries(commit))


def parse_cursor(text: str) -> FeedPosition:
    """Parse a cursor. Raises: InvalidInputError if it is malformed."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise _bad_cursor("This is not a cursor of the feed")
    return FeedPosition(int(match[1]), int(match[2]))


def check_cursor(seen: FeedPosition, newest: int, commit: Commit | None) -> None:
    """Check a cursor. `newest`: the store's newest position; `commit`: the one that the cursor names, if it exists.

    Raises: InvalidInputError if this store cannot have returned the cursor.
    """
    if seen.commit > newest or (commit is not None and seen.entry > count_entries(commit)):
        raise _bad_cursor(
            "This cursor is beyond the end of the feed: it is from another store or from a later state of this one"
        )


def _bad_cursor(problem: str) -> InvalidInputError:
    return InvalidInputError([Fault("after", f"{problem}. Omit it to start from the beginning.")])


def starts_anew(seen: FeedPosition | None, first: Commit) -> bool:
    """Return whether a reader must start again at `first`, the oldest commit of the store.

    A reader that has seen everything before it need not.
    """
    if seen is None:
        return True
    if seen.commit >= first.position:
        return False
    try:
        before = FeedPosition(first.position - 1, read_checkpoint(first).previous_entries)
    except (ValueError, RecursionError):
        return True
    return seen != before


def commit_entries(commit: Commit, after: int, read: ReadChange, *, begins: bool = False) -> Iterator[FeedEntry]:
    """Yield the entries of a commit after number `after`; -1 includes the checkpoint itself.

    `begins`: the feed begins with this commit, so that its checkpoint replaces everything before it. An unreadable row
    has no entries; the audit reports it.
    """
    try:
        if commit.type != CHECKPOINT:
            yield from _entries(commit, read_changes(commit), after, read)
            return
        heads = read_checkpoint(commit).heads
    except (ValueError, RecursionError):
        return
    if not begins:
        end = sum(head.entries for head in heads)
        if after < end:
            yield FeedEntry(FeedPosition(commit.position, end), FeedCheckpoint(restarts=False, at=commit.at))
        return
    if after < 0:
        yield FeedEntry(FeedPosition(commit.position, 0), FeedCheckpoint(restarts=True, at=commit.at))
    yield from _entries(commit, heads, after, read)


def _entries(commit: Commit, changes: Sequence[TaskChange], after: int, read: ReadChange) -> Iterator[FeedEntry]:
    before = 0
    for change in changes:
        if before + change.entries > after:
            if isinstance(change, Deletion):
                tombstone = Tombstone(change.task_id, change.last, commit.at)
                yield FeedEntry(FeedPosition(commit.position, before + 1), tombstone)
            else:
                for record in read(change):
                    number = before + record.seq - change.first + 1
                    if number > after:
                        yield FeedEntry(FeedPosition(commit.position, number), record)
        before += change.entries
