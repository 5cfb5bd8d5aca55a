"""Waiting for what tells nobody when it happens: another process, a file, a counter. Every wait is bounded."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 20.0
_PAUSE_S = 0.01


async def eventually(look: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Return what `look` gives as soon as it gives something; it may be asynchronous. Raises: TimeoutError."""
    async with asyncio.timeout(within_s):
        while not (found := await _look(look)):  # noqa: ASYNC110 - nobody says when it happens
            await asyncio.sleep(_PAUSE_S)
        return found


async def _look(look: Callable[[], Any]) -> Any:
    found = look()
    return await found if inspect.isawaitable(found) else found


def eventually_sync(look: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Do as `eventually`, where there is no event loop. Raises: AssertionError."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"it did not happen within {within_s:g} s"
        time.sleep(_PAUSE_S)
    return found
