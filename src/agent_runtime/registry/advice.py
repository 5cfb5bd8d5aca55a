"""What the operator is told of an entry that works, and does not do what was meant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """What the operator should change in an entry, in a sentence for people."""

    server_id: str
    message: str
