"""The feed of all tasks: the entries that each commit makes, in one order, and the cursors between them."""

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

_CURSOR = re.compile(r"([1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})")


class FeedPosition(NamedTuple):
    """The last entry that was seen: the position of its commit, and its number among the entries of that commit.

    Entries count from 1; number 0 is that of the checkpoint with which a feed begins. As text (`12.3`) it is a cursor.
    Entries keep their numbers when tasks are deleted.
    """

    commit: int
    entry: int

    def __str__(self) -> str:
        return f"{self.commit}.{self.entry}"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A task was deleted, `last` being the number of its last event. `at` is RFC 3339 in UTC with microseconds."""

    task_id: str
    last: int
    at: str


@dataclass(frozen=True, slots=True)
class FeedCheckpoint:
    """A checkpoint. Where `restarts`, what came before it was dropped, or never was in the feed.

    Then each task that there was at the checkpoint follows with all its events, from the first: a reader forgets all
    that it knows. Else nothing follows from it.
    """

    restarts: bool
    at: str


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """Something that happened, and the cursor after which the feed goes on."""

    position: FeedPosition
    content: EventRecord | Tombstone | FeedCheckpoint


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A part of the feed. `seen` is after which entry it goes on; `more`: there may be more at once."""

    entries: tuple[FeedEntry, ...]
    seen: FeedPosition
    more: bool


ReadChange = Callable[[Change], Sequence[EventRecord]]
"""Returns the records of a change; of a task that is gone, or whose journal is not as it was written, none."""


def parse_cursor(text: str) -> FeedPosition:
    """Return the position that a cursor names. Raises: InvalidInputError where it is of another form."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise _bad_cursor("This is not a cursor of the feed")
    return FeedPosition(int(match[1]), int(match[2]))


def check_cursor(seen: FeedPosition, newest: int, commit: Commit | None) -> None:
    """Check a cursor against the newest position of the store and the commit that it names, if that is still there.

    Raises: InvalidInputError where this store never gave it.
    """
    if seen.commit > newest or (commit is not None and seen.entry > count_entries(commit)):
        raise _bad_cursor("This cursor is beyond the end of the feed, as one of another store is, or of a later state")


def _bad_cursor(problem: str) -> InvalidInputError:
    return InvalidInputError([Fault("after", f"{problem}: begin without one.")])


def starts_anew(seen: FeedPosition | None, first: Commit) -> bool:
    """Return whether a reader that has seen so much must begin at `first`, the oldest commit that there is.

    Not one who has seen all that came before it.
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
    """Return the entries of a commit after number `after`; with -1, its checkpoint first.

    `begins`: the feed begins with it, so that a checkpoint stands for all that came before it. A row that cannot be
    read makes no entries: that is for the audit to tell.
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
