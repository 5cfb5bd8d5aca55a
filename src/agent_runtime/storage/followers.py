"""Waits for a journal to grow, without polling and without a queue for each follower."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """The state of one journal for those who follow it."""

    def __init__(self) -> None:
        self.latest: int | None = None
        """The number of the last event; None until it is known. Every commit updates it."""
        self.gone = False
        self._grown: asyncio.Event | None = None
        self.followers = 0

    def advance(self, latest: int) -> None:
        """Note that the journal has at least this many events, and wake all who wait."""
        if self.latest is None or latest > self.latest:
            self.latest = latest
        self._wake()

    def end(self) -> None:
        """Note that the journal is gone, and wake all who wait."""
        self.gone = True
        self._wake()

    async def wait_beyond(self, after: int) -> None:
        """Wait until the journal has grown beyond `after` or is gone."""
        # No event is lost between the check and the wait: there is no await between them.
        while not self.gone and (self.latest is None or self.latest <= after):
            self._grown = self._grown or asyncio.Event()
            await self._grown.wait()

    def _wake(self) -> None:
        if self._grown is not None:  # it exists only while somebody waits
            self._grown.set()
            self._grown = None


class Followers:
    """One watch for each followed task, removed with its last follower."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def task_ids(self) -> list[str]:
        """The ids of the tasks that are followed. Any thread may ask."""
        return list(self._watches)

    @contextmanager
    def watch(self, task_id: str) -> Iterator[Watch]:
        """Follow a task: every commit from now on is seen."""
        watch = self._watches.setdefault(task_id, Watch())
        watch.followers += 1
        try:
            yield watch
        finally:
            watch.followers -= 1
            if not watch.followers and self._watches.get(task_id) is watch:
                del self._watches[task_id]

    def advance(self, task_id: str, latest: int) -> None:
        if watch := self._watches.get(task_id):
            watch.advance(latest)

    def end(self, task_id: str) -> None:
        if watch := self._watches.pop(task_id, None):
            watch.end()

    def close(self) -> None:
        """Wake all followers, and remove all watches."""
        for task_id in list(self._watches):
            self.end(task_id)
