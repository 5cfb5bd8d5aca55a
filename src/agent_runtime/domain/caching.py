"""Caches for data from outside, bounded in bytes as well as in entries."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


def cache_short(*, entries: int, characters: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """Cache a function of one string. Strings longer than `characters` are computed every time.

    The keys take at most `entries * characters` characters, whatever callers send.
    """

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        cached = lru_cache(maxsize=entries)(function)

        @wraps(function)
        def call(text: str) -> T:
            return cached(text) if len(text) <= characters else function(text)

        return call

    return decorate


class SizedCache(Generic[T]):
    """A least-recently-used cache of at most `capacity` bytes in all. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._entries: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> T | None:
        """Return the value of a key, or None if it is not cached."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: T, size: int) -> None:
        """Cache a value. `size`: its bytes and its key's, roughly. Does nothing if that exceeds `capacity`."""
        if size > self._capacity:
            return
        with self._lock:
            _, before = self._entries.pop(key, (None, 0))
            self._entries[key] = (value, size)
            self._size += size - before
            while self._size > self._capacity:
                _, (_, oldest) = self._entries.popitem(last=False)
                self._size -= oldest
