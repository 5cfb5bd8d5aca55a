"""Listings of the tools of one session: always fresh, and shared by those who ask at the same time (G6)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from agent_runtime.domain.errors import ServerUnavailableError
from agent_runtime.domain.tools import ToolDefinition


@dataclass(frozen=True, slots=True)
class Listed:
    """The tools of a listing by name, the reasons why others are unusable, and the digest of what was sent.

    Without a digest nothing was sent: the server is in this process.
    """

    tools: Mapping[str, ToolDefinition]
    left_out: Mapping[str, str]
    digest: str | None = None


class SharedListing:
    """Shares listings of one session among those who ask at the same time.

    Everybody gets a listing that began after they asked. Those who ask while one is under way share the next.
    """

    def __init__(self, read: Callable[[], Awaitable[Listed]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._asked = 0
        self._began_at = 0
        self._outcome: Listed | ServerUnavailableError | None = None  # the listing, or why there is none

    async def read_fresh(self) -> Listed:
        """Return a listing that began after this was called. Raises: ServerUnavailableError."""
        self._asked = number = self._asked + 1
        async with self._lock:
            if self._began_at < number:
                # Set together with the outcome: if this reader is cancelled, the next one reads.
                began_at = self._asked
                outcome: Listed | ServerUnavailableError
                try:
                    outcome = await self._read()
                except ServerUnavailableError as error:
                    outcome = error.copy()  # the error itself would keep all that was read in memory
                self._began_at, self._outcome = began_at, outcome
            if isinstance(self._outcome, ServerUnavailableError):
                raise self._outcome.copy()
            assert self._outcome is not None  # noqa: S101 - it was read at least once
            return self._outcome
