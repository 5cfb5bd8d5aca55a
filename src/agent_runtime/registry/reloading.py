"""Reading the tool registry again while the service runs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from agent_runtime.domain.errors import ConfigurationError, RegistryFaultyError

log = structlog.get_logger()

_LOOK_S = 1.0
"""How often a watched file is looked at."""

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class RegistryChanges:
    """The ids of the entries that a reload has added, changed and removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class RegistryReloader(Generic[Loaded]):
    """Reads the registry again when it is asked to. A file with faults changes nothing.

    `read` reads and checks it, in a thread; `put_in_force` does that, on the event loop, and cannot fail.
    """

    def __init__(
        self, path: Path, read: Callable[[], Loaded], put_in_force: Callable[[Loaded], RegistryChanges]
    ) -> None:
        self._path = path
        self._read = read
        self._put_in_force = put_in_force
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Event()
        self._read_as = self._look()

    def request(self) -> None:
        """Have `watch` read the registry again soon."""
        self._asked.set()

    async def reload(self) -> RegistryChanges:
        """Read the registry again and put it in force. Raises: RegistryFaultyError; the one before stays in force."""
        async with self._one_at_a_time:
            self._read_as = self._look()
            try:
                loaded = await asyncio.to_thread(self._read)
            except ConfigurationError as error:
                log.error("registry_not_reloaded", reason=str(error))  # noqa: TRY400 - where it was raised says nothing
                raise RegistryFaultyError(error) from error
            changes = self._put_in_force(loaded)
        log.info("registry_reloaded", added=changes.added, changed=changes.changed, removed=changes.removed)
        return changes

    async def watch(self, *, file: bool) -> None:
        """Read the registry again whenever `request` asks for it; with `file` also once the file has changed."""
        seen = self._read_as
        while True:
            try:
                async with asyncio.timeout(_LOOK_S if file else None):
                    await self._asked.wait()
            except TimeoutError:
                before, seen = seen, self._look()
                if seen != before or seen == self._read_as:
                    continue  # it is as it was read, or may still be written
            self._asked.clear()
            try:
                await self.reload()
            except RegistryFaultyError:
                continue  # which is logged; the next change may mend it
            except Exception:  # the edge that owns the loop: the registry before stays in force
                log.exception("registry_reload_failed")

    def _look(self) -> tuple[int, ...]:
        """Return what differs once the file was written or replaced; nothing where it is not there."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_size, found.st_mtime_ns)
