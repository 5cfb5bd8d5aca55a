"""The hash chains of journals and of the commits of a store.

A hash is `sha256:` and the hex SHA-256 of a sequence of netstrings: each text as its length in bytes (decimal), `:`,
its bytes in UTF-8 and `,`.

* A record: the hash of the previous record, the task's id, `seq`, `epoch` (empty if None), `at` (see `format_time`),
  `type` and `data`, the last three exactly as stored.
* A commit: the hash of the previous commit, `position`, `at`, `type` and `data`.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from agent_runtime.domain.values import digest_of_bytes

GENESIS = "sha256:" + "0" * 64
"""The previous hash of a first record."""


def record_hash(previous: str, task_id: str, seq: int, epoch: int | None, at: str, kind: str, data: str) -> str:
    """Return the hash of a record whose predecessor has the hash `previous`."""
    texts = (previous, task_id, str(seq), "" if epoch is None else str(epoch), at, kind, data)
    return _hash_of(*map(_encode, texts))


def commit_hash(previous: str, position: int, at: str, kind: str, data: str) -> str:
    """Return the hash of a commit whose predecessor has the hash `previous`."""
    a, b, c, d, e = map(_encode, (previous, str(position), at, kind, data))
    return digest_of_bytes(b"%d:%b,%d:%b,%d:%b,%d:%b,%d:%b," % (len(a), a, len(b), b, len(c), c, len(d), d, len(e), e))


def _encode(text: str) -> bytes:
    # Bytes that are not UTF-8 are read as lone surrogates. They need a hash too, one that no valid text has.
    return text.encode() if text.isascii() else text.encode("utf-8", "surrogatepass")


def format_time(at: datetime) -> str:
    """Format a time as RFC 3339 in UTC with microseconds: `2026-01-02T03:04:05.000006Z`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Parse a time that `format_time` wrote. Raises: ValueError."""
    return datetime.fromisoformat(text)


StoredRow = tuple[int, int | None, bytes, bytes, bytes, bytes]
"""A record as stored: seq, epoch, at, type, data, hash."""


def chain_holds(task_id: str, rows: Iterable[StoredRow], version: int, head: str) -> bool:
    """Return whether these rows, in order, are a journal of `version` records whose last hash is `head`."""
    return slice_holds(task_id, GENESIS.encode(), rows, 1, version, head)


def slice_holds(task_id: str, previous: bytes, rows: Iterable[StoredRow], first: int, last: int, head: str) -> bool:
    """Return whether these rows, in order, are the records `first` to `last`, of which the last has the hash `head`.

    `previous` is the hash of the record before the first.
    """
    raw_id, seq_before = task_id.encode(), first - 1
    for seq, epoch, at, kind, data, stored in rows:
        seq_before += 1
        raw_epoch = b"" if epoch is None else b"%d" % epoch
        computed = _hash_of(previous, raw_id, b"%d" % seq, raw_epoch, at, kind, data).encode()
        if seq != seq_before or computed != stored:
            return False
        previous = computed
    return seq_before == last and previous == head.encode()


_NETSTRINGS = b"%d:%b," * 7
"""One format operation: every record is hashed, and a loop would take 50 % longer."""


def _hash_of(a: bytes, b: bytes, c: bytes, d: bytes, e: bytes, f: bytes, g: bytes) -> str:
    lengths_and_texts = (len(a), a, len(b), b, len(c), c, len(d), d, len(e), e, len(f), f, len(g), g)
    return digest_of_bytes(_NETSTRINGS % lengths_and_texts)
