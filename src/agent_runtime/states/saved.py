"""A saved state, the conditions under which it may be replaced, and the interface of what keeps it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state as it is stored. `data` is its JSON text; `number` counts how often it was saved, from 1."""

    agent: str
    thread: str
    number: int
    data: str
    saved_at: datetime

    @property
    def revision(self) -> str:
        """The name of this revision: its number, and the beginning of the digest of its content.

        The digest tells revisions of the same number apart after a state was deleted, or has expired, and was saved
        again.
        """
        return f"{self.number}-{sha256(self.data.encode()).hexdigest()[:16]}"


Condition = Callable[[SavedState | None], bool]
"""Returns whether a state may be replaced; called with None where there is none."""


def allow_any(state: SavedState | None) -> bool:  # noqa: ARG001 - the shape of a condition
    """Allow every write."""
    return True


def require_absent(state: SavedState | None) -> bool:
    """Allow a write only where there is no state yet."""
    return state is None


def require_present(state: SavedState | None) -> bool:
    """Allow a write only where there is a state."""
    return state is not None


def require_revision(*revisions: str) -> Condition:
    """Return the condition that the current state is one of these revisions."""
    return lambda state: state is not None and state.revision in revisions


class StateStore(Protocol):
    """Keeps states. A write is durable when it returns. All raise StoreUnavailableError.

    A state that was saved before `horizon` has expired: it counts as absent. None: states do not expire.
    """

    async def load(self, agent: str, thread: str, horizon: datetime | None = None) -> SavedState | None:
        """Return the state; None if there is none."""

    async def save(
        self, agent: str, thread: str, data: str, condition: Condition = allow_any, horizon: datetime | None = None
    ) -> SavedState:
        """Save a state in place of the current one, and return it with its new revision.

        Raises: StateChangedError, and nothing is written, where `condition` does not allow it.
        """

    async def delete(
        self, agent: str, thread: str, condition: Condition = allow_any, horizon: datetime | None = None
    ) -> bool:
        """Delete a state. Return whether there was one. Raises: StateChangedError likewise."""

    async def delete_expired(self, horizon: datetime, limit: int) -> int:
        """Delete at most `limit` states that were saved before `horizon`. Return how many there were."""
