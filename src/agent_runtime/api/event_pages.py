"""The journal of a task in pages."""

from collections.abc import Awaitable, Callable

from agent_runtime.api.views import record_json
from agent_runtime.domain.events import EventRecord
from agent_runtime.domain.summaries import PAGE_BYTES

_AT_ONCE = 64
"""The number of events to read from the store at once; a single event may be as long as a page."""

ReadRecords = Callable[[int, int], Awaitable[list[EventRecord]]]
"""Returns the records after a number, at most so many."""


async def read_event_page(read: ReadRecords, after: int, limit: int) -> bytes:
    """Return a page of events as JSON (`EventsView`).

    It ends after `limit` events, or with the event that makes it longer than `PAGE_BYTES`.
    """
    events, next_after = await _read_events(read, after, limit)
    return f'{{"events":[{",".join(events)}],"next_after":{"null" if next_after is None else next_after}}}'.encode()


async def _read_events(read: ReadRecords, after: int, limit: int) -> tuple[list[str], int | None]:
    """Return events as JSON, and the number of the event to read after next; None at the end."""
    events: list[str] = []
    size = 0
    while True:
        records = await read(after, _AT_ONCE)
        for record in records:
            if len(events) == limit or size >= PAGE_BYTES:
                return events, after
            events.append(record_json(record, with_epoch=True))
            size += len(events[-1])
            after = record.seq
        if len(records) < _AT_ONCE:
            return events, None
