"""Resources of the doors that are opened with their first use and last as long as the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import structlog

log = structlog.get_logger()

Entered = TypeVar("Entered")


class Background:
    """Holds context managers open, each in a task of its own, until the service stops."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._closing = asyncio.Event()

    async def hold(self, resource: AbstractAsyncContextManager[Entered]) -> Entered:
        """Enter the context manager, and return what it gives. It is left when the service stops.

        Raises: what the context manager raises.
        """
        entered: asyncio.Future[Entered] = asyncio.get_running_loop().create_future()
        self._group.create_task(self._keep(resource, entered))
        return await asyncio.shield(entered)

    async def _keep(self, resource: AbstractAsyncContextManager[Entered], entered: "asyncio.Future[Entered]") -> None:
        try:
            async with resource as value:
                entered.set_result(value)
                await self._closing.wait()
        except Exception as error:  # one door must not end the service
            if entered.done():
                log.exception("door_failed")
            else:
                entered.set_exception(error)

    def close(self) -> None:
        self._closing.set()


@asynccontextmanager
async def keep_background() -> AsyncIterator[Background]:
    """Yield what holds the resources of doors, and leave them all at the end."""
    async with asyncio.TaskGroup() as group:
        background = Background(group)
        try:
            yield background
        finally:
            background.close()
