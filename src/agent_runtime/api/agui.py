"""AG-UI 1.0 at `/agui`: a run of an agent front end as Server-Sent Events; see docs/reference/agui.md."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from agent_runtime.api.agui_input import read_input
from agent_runtime.api.agui_runs import answer_connect, answer_run
from agent_runtime.api.deps import CurrentCaller, Service
from agent_runtime.api.json_bodies import judge_body
from agent_runtime.api.scopes import requires

router = APIRouter(prefix="/agui", include_in_schema=False)


@router.post("")
@requires("submit", "approve")  # a message needs `submit`, each answer the scope of its decision, and all need `read`
async def run_agent(request: Request, runtime: Service, caller: CurrentCaller) -> Response:
    """Submit the last message as a task of its thread, or answer interrupts, and follow the task."""
    return await answer_run(request, runtime, caller, await judge_body(request, read_input))


@router.post("/connect")
@requires("read")
async def connect(request: Request, runtime: Service, caller: CurrentCaller) -> Response:
    """Tell what has happened in a thread, and follow its task."""
    return await answer_connect(request, runtime, caller, await judge_body(request, read_input))
