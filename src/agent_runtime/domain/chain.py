"""The chain of hashes that ties the records of a journal together, so that a change of any of them shows.

The hash of a record is `sha256:` and the hex SHA-256 over seven texts, one after the other, each as a netstring (its
length in bytes as a decimal number, `:`, its bytes in UTF-8, `,`): the hash of the record before it, the task's id,
`seq`, `epoch` (empty where it is null), `at`, `type` and `data`, the last three exactly as they are stored.
"""

from agent_runtime.domain.values import digest_of_bytes

GENESIS = "sha256:" + "0" * 64
"""What stands for the hash of the record before the first."""


def record_hash(previous: str, task_id: str, seq: int, epoch: int | None, at: str, kind: str, data: str) -> str:
    """The hash of a record whose predecessor has the hash `previous`."""
    texts = (previous, task_id, str(seq), "" if epoch is None else str(epoch), at, kind, data)
    # A lone surrogate stands for a byte that is no UTF-8: it has a hash too, and one that no good text has.
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return digest_of_bytes(b"".join([b"%d:%b," % (len(raw), raw) for raw in encoded]))
