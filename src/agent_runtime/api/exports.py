"""The audit export of a task over REST: its prompt, approvals and calls, with the hashes that prove them.

See docs/reference/rest.md.
"""

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from agent_runtime.api.deps import CurrentCaller, Service, whole_journals
from agent_runtime.api.openapi import refusals
from agent_runtime.api.scopes import requires
from agent_runtime.api.task_ids import TaskId
from agent_runtime.domain.audit_export import export
from agent_runtime.domain.stored_journal import StoredJournal

router = APIRouter(prefix="/v1/tasks", tags=["Tasks"])

_DOCUMENT: dict[str, Any] = {
    "content": {"application/json": {"schema": {"type": "object"}}},
    "description": "The export, which `agent-runtime audit verify --file` checks offline",
}


@router.get("/{task_id}/audit", response_class=Response, responses={200: _DOCUMENT, **refusals(404, 503)})
@requires("read")
async def export_audit(request: Request, task_id: TaskId, runtime: Service, caller: CurrentCaller) -> Response:
    """Export the prompt, the plan, its approvals, every call, and the journal with its hashes, for an audit."""
    async with whole_journals(request):
        kept = await runtime.tasks.load_stored_journal(task_id, caller)
        encoded = await asyncio.to_thread(_encode, kept)
    return Response(encoded, media_type="application/json")


def _encode(kept: StoredJournal) -> bytes:
    return json.dumps(export(kept)).encode("ascii")  # escapes bytes of a broken journal that are not UTF-8
