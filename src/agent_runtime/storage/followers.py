"""Waiting for a journal to grow, without polling and without a queue for each follower."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """What is known of one journal while somebody follows it."""

    def __init__(self) -> None:
        self.latest: int | None = None
        """The number of the last event, once it is known; every commit keeps it up to date."""
        self.gone = False
        self._grown: asyncio.Event | None = None
        self.followers = 0

    def advance(self, latest: int) -> None:
        """The journal has at least this many events."""
        if self.latest is None or latest > self.latest:
            self.latest = latest
        self._wake()

    def end(self) -> None:
        """There is no such journal any more."""
        self.gone = True
        self._wake()

    async def wait_beyond(self, after: int) -> None:
        """Return once the journal has grown beyond `after` or is gone."""
        # Nothing can happen between the look and the wait: both are on the event loop, with no await between.
        while not self.gone and (self.latest is None or self.latest <= after):
            self._grown = self._grown or asyncio.Event()
            await self._grown.wait()

    def _wake(self) -> None:
        if self._grown is not None:  # there is one only while somebody waits
            self._grown.set()
            self._grown = None


class Followers:
    """The watches of the tasks that are followed now; one for each task, gone with its last follower."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}

    def __len__(self) -> int:
        return len(self._watches)

    @contextmanager
    def watch(self, task_id: str) -> Iterator[Watch]:
        """Follow a task: whatever is committed from here on is seen."""
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
        """Let go of all followers."""
        for task_id in list(self._watches):
            self.end(task_id)
