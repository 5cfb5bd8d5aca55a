"""Bounded polling for things that cannot be awaited: another process, a file, a counter."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 20.0
_PAUSE_S = 0.01


async def eventually(look: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Call `look`, which may be asynchronous, until its result is true, and return that. Raises: TimeoutError."""
    async with asyncio.timeout(within_s):
        while not (found := await _look(look)):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(_PAUSE_S)
        return found


async def _look(look: Callable[[], Any]) -> Any:
    found = look()
    return await found if inspect.isawaitable(found) else found


def eventually_sync(look: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Like `eventually`, but without an event loop. Raises: AssertionError."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"it did not happen within {within_s:g} s"
        time.sleep(_PAUSE_S)
    return found
