"""Ids of tasks as people type them: whole, shortened to a unique prefix, or `last`."""

import argparse
import re
from collections.abc import Callable, Iterator

from agent_runtime.client import Client
from agent_runtime.domain.errors import Fault, InvalidInputError

_WHOLE = re.compile(r"task_[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-z_]{1,37}")
_LAST = "last"
_MOST_SHOWN = 5
_PAGE = 200


def complete_id(options: argparse.Namespace, list_ids: Callable[[], Iterator[str]]) -> None:
    """Replace the id of the task in the options by the whole id, if the command has one.

    `list_ids` yields the ids of all tasks, newest first. An id that fits none stays as it is, and the service says so.
    Raises: InvalidInputError if several fit, or if `last` is asked for and there are no tasks.
    """
    text = getattr(options, "task_id", None)
    if text is None or _WHOLE.fullmatch(text) or not _PREFIX.fullmatch(text):
        return
    if text == _LAST:
        newest = next(list_ids(), None)
        if newest is None:
            raise InvalidInputError([Fault("ID", "There are no tasks, so there is no last one.")])
        options.task_id = newest
        return
    prefix = text if text.startswith("task_") else f"task_{text}"
    found = [task_id for task_id in list_ids() if task_id.startswith(prefix)]
    if len(found) > 1:
        more = f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        shown = f"{', '.join(found[:_MOST_SHOWN])}{more}"
        raise InvalidInputError([Fault("ID", f"{len(found)} tasks begin with {text!r}: type more of it. {shown}")])
    if found:
        options.task_id = found[0]


def list_newest_first(client: Client) -> Iterator[str]:
    """Yield the ids of all tasks of a service, newest first."""
    cursor: str | None = None
    while True:
        page = client.list_tasks(limit=_PAGE, cursor=cursor)
        yield from (task["task_id"] for task in page["tasks"])
        cursor = page["next_cursor"]
        if cursor is None:
            return
