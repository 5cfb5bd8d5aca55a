"""The list of tasks in pages, and the search in it: a bounded scan, newest first, the same on every store."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from agent_runtime.api.bodies import ListQuery
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.summaries import PAGE_BYTES, Page, TaskSummary
from agent_runtime.services.task_manager import TaskManager

MOST_SCANNED = 10_000
"""The number of tasks after which a search returns what it has found; its cursor says where to go on."""

_AT_ONCE = 200

ReadPage = Callable[[int, str | None], Awaitable[Page]]
"""Returns a page of at most so many tasks from a cursor on; None: from the newest one."""


async def read_page(tasks: TaskManager, caller: Caller, query: ListQuery) -> Page:
    """Return a page of the tasks; with `q`, of those that have all of its words. Raises: InvalidInputError."""

    async def read(limit: int, cursor: str | None) -> Page:
        return await tasks.page(caller, query.status, limit, cursor, query.thread)

    if query.q is None:
        return await read(query.limit, query.cursor)
    return await find_tasks(read, query.q, query.limit, query.cursor)


async def find_tasks(read: ReadPage, query: str, limit: int, cursor: str | None = None) -> Page:
    """Return the newest tasks with all words of the query in their id, prompt, thread or metadata, whatever their case.

    The page may have fewer tasks than `limit`, or none, and yet a next cursor: then `MOST_SCANNED` were looked at.
    Raises: what `read` raises, such as InvalidInputError for an invalid cursor.
    """
    words = query.casefold().split()
    found: list[TaskSummary] = []
    scanned, size, most = 0, 0, _AT_ONCE
    while True:
        page = await read(most, cursor)
        fitting, seen = _fill(page.tasks, words, limit - len(found), PAGE_BYTES - size)
        if seen < len(page.tasks):  # the next page begins in the middle of this one: read it again, up to there
            most = seen
            continue
        found += fitting
        scanned += seen
        size += sum(task.size for task in fitting)
        if page.next_cursor is None or len(found) >= limit or size >= PAGE_BYTES or scanned >= MOST_SCANNED:
            return Page(tuple(found), page.next_cursor)
        cursor, most = page.next_cursor, _AT_ONCE


def _fill(
    tasks: Sequence[TaskSummary], words: Sequence[str], room: int, bytes_left: int
) -> tuple[list[TaskSummary], int]:
    """Return the tasks with these words, up to the one that fills the page, and how many tasks were looked at."""
    found: list[TaskSummary] = []
    for number, task in enumerate(tasks, 1):
        if _matches(task, words):
            found.append(task)
            bytes_left -= task.size
            if len(found) == room or bytes_left <= 0:
                return found, number
    return found, len(tasks)


def _matches(task: TaskSummary, words: Iterable[str]) -> bool:
    labels = (text for pair in task.metadata.items() for text in pair)
    text = "\n".join([task.task_id, task.prompt, task.thread or "", *labels]).casefold()
    return all(word in text for word in words)
