"""Reload the tool registry while the service runs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from agent_runtime.domain.errors import ConfigurationError, RegistryFaultyError

log = structlog.get_logger()

_LOOK_S = 1.0
"""The interval between checks of a watched file, in seconds."""

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, slots=True)
class RegistryChanges:
    """The ids of the entries that a reload has added, changed and removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class RegistryReloader(Generic[Loaded]):
    """Reloads the registry on request. A file with faults changes nothing.

    `read`: reads and validates it, in a thread. `put_in_force`: makes it current, on the event loop; it cannot fail.
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
        """Make `watch` reload the registry soon."""
        self._asked.set()

    async def reload(self) -> RegistryChanges:
        """Reload the registry. Raises: RegistryFaultyError if it has faults; the previous one then stays current."""
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
        """Reload the registry after each `request`, and with `file` also after the file has changed."""
        seen = self._read_as
        while True:
            try:
                async with asyncio.timeout(_LOOK_S if file else None):
                    await self._asked.wait()
            except TimeoutError:
                before, seen = seen, self._look()
                if seen != before or seen == self._read_as:
                    continue  # unchanged since it was read, or possibly still being written
            self._asked.clear()
            try:
                await self.reload()
            except RegistryFaultyError:
                continue  # logged already; the next change may fix it
            except Exception:  # the edge that owns the loop: the previous registry stays current
                log.exception("registry_reload_failed")

    def _look(self) -> tuple[int, ...]:
        """Return values that change when the file is written or replaced; empty if it does not exist."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return (found.st_ino, found.st_size, found.st_mtime_ns)
