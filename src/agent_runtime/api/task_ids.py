"""Task ids in paths."""

import re
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator

from agent_runtime.domain.errors import TaskNotFoundError

_FORM = re.compile(r"[A-Za-z0-9_-]{1,100}")


def known_form(task_id: str) -> str:
    """Return the id if its form is valid. Raises: TaskNotFoundError."""
    if not _FORM.fullmatch(task_id):
        raise TaskNotFoundError(task_id[:100])
    return task_id


TaskId = Annotated[
    str,
    AfterValidator(known_form),
    Path(
        description="The id that `POST /v1/tasks` gave.",
        examples=["task_0193c2f5a1b2"],
        json_schema_extra={"pattern": f"^{_FORM.pattern}$"},
    ),
]
