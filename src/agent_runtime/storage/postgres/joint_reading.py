"""Reads something about many tasks with few queries: all who ask at one time share one."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeAlias, TypeVar

from agent_runtime.domain.errors import StoreClosedError, StoreUnavailableError
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.readers import Readers

T = TypeVar("T")

_Waiting: TypeAlias = dict[str, list[asyncio.Future[T | None]]]


class JointReader(Generic[T]):
    """Reads one value for each task, with `select`. Whoever asks while a query is under way shares the next one.

    All methods belong to one event loop.
    """

    def __init__(self, readers: Readers, select: Callable[[Connection, Collection[str]], Mapping[str, T]]) -> None:
        self._readers = readers
        self._select = select
        self._asked: _Waiting[T] = {}
        self._busy = False

    async def read(self, task_id: str) -> T | None:
        """Return the value that the task had after this was called; None if it has none.

        Raises: StoreUnavailableError.
        """
        loop = asyncio.get_running_loop()
        found: asyncio.Future[T | None] = loop.create_future()
        self._asked.setdefault(task_id, []).append(found)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._query)  # not at once: others that are ready now share the query
        return await found

    def _query(self) -> None:
        asked, self._asked = self._asked, {}
        try:
            answer = self._readers.submit(lambda connection: self._select(connection, [*asked]))
        except StoreUnavailableError as error:
            self._busy = False
            _fail(asked, error)
        else:
            answer.add_done_callback(lambda done: self._settle(asked, done))

    def _settle(self, asked: _Waiting[T], answer: asyncio.Future[Mapping[str, T]]) -> None:
        if self._asked:
            self._query()
        else:
            self._busy = False
        if answer.cancelled():
            _fail(asked, StoreClosedError())
        elif (error := answer.exception()) is not None:
            _fail(asked, error)
        else:
            values = answer.result()
            for task_id, waiting in asked.items():
                for one in waiting:
                    if not one.done():  # whoever asked was cancelled
                        one.set_result(values.get(task_id))


def _fail(asked: _Waiting[T], error: BaseException) -> None:
    for waiting in asked.values():
        for one in waiting:
            if not one.done():
                one.set_exception(error)
