"""The tasks of a thread of a front end."""

from agent_runtime.api.task_ids import known_form
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import TaskNotFoundError
from agent_runtime.domain.task import Task


async def list_thread(runtime: Runtime, caller: Caller, thread: str, limit: int) -> list[Task]:
    """Return the newest tasks of a thread, newest first, at most `limit`.

    The id of a task names a thread that has this task alone, unless there is a thread of that name.
    """
    while True:
        page = await runtime.tasks.page(caller, limit=limit, thread=thread)
        ids = [summary.task_id for summary in page.tasks]
        found = [task for task_id in ids or [thread] if (task := await _find(runtime, caller, task_id))]
        if found or not ids:  # else all have been deleted meanwhile, and there may be older ones
            return found


async def _find(runtime: Runtime, caller: Caller, task_id: str) -> Task | None:
    try:
        return await runtime.tasks.get(known_form(task_id), caller)
    except TaskNotFoundError:
        return None
