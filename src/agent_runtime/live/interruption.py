"""Stops work when an event is set."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

from agent_runtime.domain.errors import AgentRuntimeError

T = TypeVar("T")


async def run_until(work: Awaitable[T], *events: asyncio.Event) -> T | None:
    """Return the result of the work; None if an event was set first, after the work was cancelled.

    Raises: what the work raises.
    """
    outcome: T | None = None
    failure: AgentRuntimeError | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as bound, asyncio.TaskGroup() as group:
            watches = [group.create_task(_expire_on(bound, event)) for event in events]
            try:
                outcome = await work
            except AgentRuntimeError as error:  # kept from the group, which would wrap it
                failure = error
            finally:
                for watch in watches:
                    watch.cancel()
    if failure is not None:
        raise failure
    return outcome


async def _expire_on(bound: asyncio.Timeout, event: asyncio.Event) -> None:
    await event.wait()
    if bound.when() is None:
        bound.reschedule(asyncio.get_running_loop().time())
