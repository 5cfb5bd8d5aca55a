"""Health checks (G16): liveness of the process, and readiness to accept work."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime import __version__
from agent_runtime.api.deps import CurrentCaller, Service
from agent_runtime.api.openapi import refusals
from agent_runtime.api.problems import RETRY_AFTER_S, problem
from agent_runtime.api.scopes import requires
from agent_runtime.api.service_shapes import StatusView
from agent_runtime.api.service_views import service_view
from agent_runtime.api.views import answer
from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.errors import StoreUnavailableError
from agent_runtime.mcp_servers.sandbox import describe_level
from agent_runtime.runners.claims import Claims

STORE_CHECK_S = 1.0
"""The time limit of a write, in seconds, after which the service reports that it is not ready."""

router = APIRouter(tags=["Health"])


class Health(TypedDict):
    status: str


class Ready(TypedDict):
    """Readiness to accept work. `sandbox` is the isolation of MCP server processes on this machine (G10)."""

    status: str
    checks: dict[str, str]
    sandbox: str


@router.get("/health", responses={200: {"model": Health}})
@router.get("/healthz", responses={200: {"model": Health}})
@requires()
async def healthz() -> Response:
    """Report that the process is alive. `/health` is the path of the first runtime."""
    return answer({"status": "ok"})


@router.get("/v1/status", responses={200: {"model": StatusView}, **refusals(503)})
@requires("read")
async def status(runtime: Service, caller: CurrentCaller) -> Response:
    """Show the version, planner and model, the number of tasks by status, and the last known state of MCP servers."""
    counts = await runtime.tasks.count(caller)
    return answer(service_view(runtime.planner, runtime.model, __version__, counts, runtime.registry.statuses()))


@router.get("/readyz", responses={200: {"model": Ready}, **refusals(503)})
@requires()
async def readyz(request: Request, runtime: Service) -> Response:
    """Report readiness: a write succeeded within a second, and every unfinished task was resumed. A replica must also
    hear of the others, and have shown lately that it lives.
    """
    checks = {
        "store": await _check_store(runtime),
        **await _check_replica(runtime),
        "recovery": "ok"
        if runtime.recovered.is_set()
        else "not all unfinished tasks of an earlier process were resumed",
    }
    starts_servers = runtime.settings.role != "api"
    sandbox = await asyncio.to_thread(describe_level) if starts_servers else "none: this replica starts no servers"
    failed = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    if failed:
        detail = f"Not ready. {'; '.join(failed)}."
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        return problem(request.scope, 503, detail, code="not_ready", headers=retry, checks=checks, sandbox=sandbox)
    return answer({"status": "ready", "checks": checks, "sandbox": sandbox})


async def _check_store(runtime: Runtime) -> str:
    try:
        async with asyncio.timeout(STORE_CHECK_S):
            await runtime.store.check()
    except StoreUnavailableError as error:
        return str(error)
    except TimeoutError:
        return f"a write took longer than {STORE_CHECK_S:g} s"
    return "ok"


async def _check_replica(runtime: Runtime) -> dict[str, str]:
    """Check the connections through which a replica hears of the others, and takes tasks; nothing if it is alone."""
    checks: dict[str, str] = {}
    sharing = runtime.store.sharing
    if sharing is not None:
        checks["listener"] = "ok" if sharing.hears else "the connection that hears of other replicas is lost"
    if runtime.claims is not None:
        checks["queue"] = "ok" if await _has_claims(runtime.claims) else "the queue of tasks cannot be reached"
    return checks


async def _has_claims(claims: Claims) -> bool:
    try:
        async with asyncio.timeout(STORE_CHECK_S):
            return await claims.confirm()
    except TimeoutError:
        return False
