"""The commits of a store: which journals each of them changed, in one durable order, chained by their hashes.

Each commit is a row. `data` is canonical JSON. Of the type `changes` it is a list, in the order in which it happened: a
`Change` for each journal that grew, a `Deletion` for each task that was deleted. Of the type `checkpoint` it names the
head of every journal, so that the rows before it may be dropped; it says itself whether they were.
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
    """A journal got the records `first` to `last`, the last of which has the hash `head`."""

    task_id: str
    first: int
    last: int
    head: str

    @property
    def entries(self) -> int:
        return self.last - self.first + 1


class Deletion(NamedTuple):
    """A task was deleted whose journal ended with record `last`, of the hash `head`: the tombstone of the task.

    `journal_changed`: its journal was not as it was written, so that `last` and `head` are only what its row said.
    """

    task_id: str
    last: int
    head: str
    journal_changed: bool = False

    @property
    def entries(self) -> int:
        return 1


TaskChange = Change | Deletion


class CommitHead(NamedTuple):
    """The newest commit: what proves all before it. Position 0 is that of a store without commits."""

    position: int = 0
    hash: str = GENESIS

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


_HEAD = re.compile(r"(0|[1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})")


def parse_head(text: str) -> CommitHead:
    """Return the head that a text names, `POSITION:HASH`. Raises: ValueError where it is of another form."""
    match = _HEAD.fullmatch(text)
    if match is None:
        raise ValueError("it must be POSITION:HASH, such as 12:sha256: and 64 hexadecimal digits")
    return CommitHead(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class Commit:
    """A row as it is stored. Nothing in it is trusted: see `read_changes` and `read_checkpoint`."""

    position: int
    at: str
    type: str
    data: str
    hash: str

    def hash_after(self, previous: str) -> str:
        """Return the hash that this row must have after one of the hash `previous`."""
        return commit_hash(previous, self.position, self.at, self.type, self.data)

    @property
    def head(self) -> CommitHead:
        return CommitHead(self.position, self.hash)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The journals at a checkpoint, each from its first record; `previous` and `previous_entries` are of the row
    before: its hash, and how many entries it has in the feed. `dropped`: no row before it was kept.
    """

    heads: tuple[Change, ...]
    previous: str
    previous_entries: int
    dropped: bool


CommitRow = tuple[int, str, str, str, str]
"""A commit as it is stored: position, at, type, data, hash."""


def chain_commit(after: CommitHead, at: str, kind: str, data: str) -> CommitRow:
    """Return the row that follows `after`."""
    position = after.position + 1
    return position, at, kind, data, commit_hash(after.hash, position, at, kind, data)


def merge_changes(changes: Sequence[TaskChange]) -> Sequence[TaskChange]:
    """Return the changes of one commit in their order, with one for all that a journal got in it."""
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
    """Return the `data` of a commit: canonical JSON, written out because each commit needs it."""
    return f"[{','.join(map(_encode, changes))}]"


def _encode(change: TaskChange) -> str:
    end = f'"head":{_quoted(change.head)},"last":{change.last},"task_id":{_quoted(change.task_id)}}}'
    if isinstance(change, Change):
        return f'{{"first":{change.first},{end}'
    if change.journal_changed:
        end = end.replace(',"last"', ',"journal_changed":true,"last"', 1)
    return f'{{"deleted":true,{end}'


def encode_checkpoint(heads: Iterable[Change], previous: Commit | None, *, drop: bool = False) -> str:
    """Return the `data` of a checkpoint after the row `previous`, `None` where there is none.

    `drop`: the rows before it go with it.
    """
    entries = 0 if previous is None else count_entries(previous)
    hash_ = GENESIS if previous is None else previous.hash
    named = ",".join(
        [f'{{"head":{_quoted(one.head)},"last":{one.last},"task_id":{_quoted(one.task_id)}}}' for one in heads]
    )
    dropped = '"dropped":true,' if drop else ""
    return f'{{{dropped}"heads":[{named}],"previous":{{"entries":{entries},"hash":{_quoted(hash_)}}}}}'


def read_changes(commit: Commit) -> list[TaskChange]:
    """Return what a row of the type `changes` says. Raises: ValueError where it says no such thing."""
    if commit.type != CHANGES:
        raise ValueError(f"there is no type {commit.type!r}")
    return [_read_change(value) for value in _list(json.loads(commit.data))]


def _read_change(value: Any) -> TaskChange:
    task_id, last, head = _text(value, "task_id"), _number(value, "last"), _text(value, "head")
    if value.get("deleted") is True:
        return Deletion(task_id, last, head, value.get("journal_changed") is True)
    change = Change(task_id, _number(value, "first"), last, head)
    if not 1 <= change.first <= change.last:
        raise ValueError("first and last are no range")
    return change


def read_checkpoint(commit: Commit) -> Checkpoint:
    """Return what a row of the type `checkpoint` says. Raises: ValueError where it says no such thing."""
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
    """Return how many entries of the feed a row makes, deleted tasks included; 0 of one that cannot be read."""
    try:
        changes: Sequence[TaskChange] = (
            read_checkpoint(commit).heads if commit.type == CHECKPOINT else read_changes(commit)
        )
    except (ValueError, RecursionError):
        return 0
    return sum(change.entries for change in changes)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("it is no list")  # noqa: TRY004 - all that is wrong with a row is a ValueError
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
