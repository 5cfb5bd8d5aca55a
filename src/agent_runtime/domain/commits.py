"""The commits of a store: the journals that each one changed, in one durable order, chained by hashes.

Each commit is a row whose `data` is canonical JSON. For the type `changes` it is a list, in order: a `Change` for each
journal that grew, a `Deletion` for each task that was deleted. For the type `checkpoint` it has the head of every
journal, so that the rows before it may be dropped, and states whether they were.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json import JSONEncoder
from typing import Any, NamedTuple

from agent_runtime.domain.chain import GENESIS, commit_hash

CHANGES, CHECKPOINT = "changes", "checkpoint"

_quoted = JSONEncoder(ensure_ascii=False).encode


class Change(NamedTuple):
    """Records `first` to `last` were added to a journal. `head`: the hash of the last one."""

    task_id: str
    first: int
    last: int
    head: str

    @property
    def entries(self) -> int:
        return self.last - self.first + 1


class Deletion(NamedTuple):
    """A task was deleted; this is its tombstone. Its journal ended with record `last`, whose hash is `head`.

    `journal_changed`: the journal had been tampered with, so `last` and `head` are from the task's row.
    """

    task_id: str
    last: int
    head: str
    journal_changed: bool = False

    def fits(self, last: int, head: str) -> bool:
        """Return whether it may be the tombstone of a journal that ended so."""
        return self.journal_changed or (self.last, self.head) == (last, head)

    @property
    def entries(self) -> int:
        return 1


TaskChange = Change | Deletion


class CommitHead(NamedTuple):
    """The newest commit, whose hash proves all commits before it. Position 0: the store has no commits."""

    position: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


_HEAD = re.compile(r"(0|[1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})")


def parse_head(text: str) -> CommitHead:
    """Parse a head, `POSITION:HASH`. Raises: ValueError if it is malformed."""
    match = _HEAD.fullmatch(text)
    if match is None:
        raise ValueError("it must be POSITION:HASH, such as 12:sha256: and 64 hexadecimal digits")
    return CommitHead(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Commit:
    """A stored row. Untrusted: see `read_changes` and `read_checkpoint`."""

    position: int
    at: str
    type: str
    data: str
    hash: str

    def hash_after(self, previous: str) -> str:
        """Return the expected hash of this row if the previous row has the hash `previous`."""
        return commit_hash(previous, self.position, self.at, self.type, self.data)

    @property
    def head(self) -> CommitHead:
        return CommitHead(self.position, self.hash)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The journals at a checkpoint, each as a change from its first record.

    `previous`, `previous_entries`: the hash of the previous row, and its number of entries in the feed. `dropped`: the
    rows before the checkpoint were dropped.
    """

    heads: tuple[Change, ...]
    previous: str
    previous_entries: int
    dropped: bool


CommitRow = tuple[int, str, str, str, str]
"""A commit as stored: position, at, type, data, hash."""


def chain_commit(after: CommitHead, at: str, kind: str, data: str) -> CommitRow:
    """Return the row of a new commit after `after`."""
    position = after.position + 1
    return position, at, kind, data, commit_hash(after.hash, position, at, kind, data)


def merge_changes(changes: Sequence[TaskChange]) -> Sequence[TaskChange]:
    """Return the changes of one commit in order, with those of the same journal merged."""
    if len(changes) == 1:
        return changes
    merged: list[TaskChange] = []
    places: dict[str, int] = {}
    for change in changes:
        place = places.get(change.task_id)
        known = None if place is None else merged[place]
        if place is not None and isinstance(known, Change) and isinstance(change, Change):
            merged[place] = Change(change.task_id, known.first, change.last, change.head)
        else:
            places[change.task_id] = len(merged)
            merged.append(change)
    return merged


def encode_changes(changes: Iterable[TaskChange]) -> str:
    """Return the `data` of a commit: canonical JSON, formatted by hand for speed."""
    return f"[{','.join(map(_encode, changes))}]"


def _encode(change: TaskChange) -> str:
    end = f'"head":{_quoted(change.head)},"last":{change.last},"task_id":{_quoted(change.task_id)}}}'
    if isinstance(change, Change):
        return f'{{"first":{change.first},{end}'
    if change.journal_changed:
        end = end.replace(',"last"', ',"journal_changed":true,"last"', 1)
    return f'{{"deleted":true,{end}'


def encode_checkpoint(heads: Iterable[Change], previous: Commit | None, *, drop: bool = False) -> str:
    """Return the `data` of a checkpoint after the row `previous`, or after none.

    `drop`: the rows before it are dropped.
    """
    entries = 0 if previous is None else count_entries(previous)
    hash_ = GENESIS if previous is None else previous.hash
    named = ",".join(
        [f'{{"head":{_quoted(one.head)},"last":{one.last},"task_id":{_quoted(one.task_id)}}}' for one in heads]
    )
    dropped = '"dropped":true,' if drop else ""
    return f'{{{dropped}"heads":[{named}],"previous":{{"entries":{entries},"hash":{_quoted(hash_)}}}}}'


def read_changes(commit: Commit) -> list[TaskChange]:
    """Decode a row of the type `changes`. Raises: ValueError if it is malformed."""
    if commit.type != CHANGES:
        raise ValueError(f"there is no type {commit.type!r}")
    return [_read_change(value) for value in _list(json.loads(commit.data))]


def _read_change(value: Any) -> TaskChange:
    task_id, last, head = _text(value, "task_id"), _number(value, "last"), _text(value, "head")
    if value.get("deleted") is True:
        return Deletion(task_id, last, head, value.get("journal_changed") is True)
    change = Change(task_id, _number(value, "first"), last, head)
    if not 1 <= change.first <= change.last:
        raise ValueError("first and last are not a range")
    return change


def read_checkpoint(commit: Commit) -> Checkpoint:
    """Decode a row of the type `checkpoint`. Raises: ValueError if it is malformed."""
    if commit.type != CHECKPOINT:
        raise ValueError(f"there is no type {commit.type!r}")
    value = json.loads(commit.data)
    before = _field(value, "previous", dict)
    heads = [
        Change(_text(one, "task_id"), 1, _number(one, "last"), _text(one, "head"))
        for one in _list(_field(value, "heads", list))
    ]
    return Checkpoint(tuple(heads), _text(before, "hash"), _number(before, "entries"), value.get("dropped") is True)


def count_entries(commit: Commit) -> int:
    """Return the number of a row's entries in the feed, including those of deleted tasks; 0 if it cannot be read."""
    try:
        changes: Sequence[TaskChange] = (
            read_checkpoint(commit).heads if commit.type == CHECKPOINT else read_changes(commit)
        )
    except (ValueError, RecursionError):
        return 0
    return sum(change.entries for change in changes)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("it is not a list")  # noqa: TRY004 - all that is wrong with a row is a ValueError
    return value


def _field(value: Any, name: str, kind: type) -> Any:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{name} is missing or of another type")  # noqa: TRY004 - likewise
    return found


def _text(value: Any, name: str) -> str:
    text: str = _field(value, name, str)
    return text


def _number(value: Any, name: str) -> int:
    number: int = _field(value, name, int)
    return number
