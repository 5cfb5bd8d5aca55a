"""The caller as the service knows them, so that a front end can say who one is and offer only what one may do."""

from fastapi import APIRouter
from starlette.responses import Response
from typing_extensions import TypedDict

from agent_runtime.api.deps import CurrentCaller
from agent_runtime.api.scopes import requires
from agent_runtime.api.views import answer
from agent_runtime.domain.caller import SCOPES

router = APIRouter(tags=["Access"])


class CallerView(TypedDict):
    """The caller. `scopes` lists all scopes that the caller has; `admin` includes the others. `via`: `key` or
    `anonymous`.
    """

    name: str
    tenant: str
    scopes: list[str]
    via: str


@router.get("/v1/me", responses={200: {"model": CallerView}})
@requires(*SCOPES)
async def show_caller(caller: CurrentCaller) -> Response:
    """Return the name and the scopes of the caller."""
    scopes = [scope for scope in SCOPES if caller.may(scope)]
    me: CallerView = {"name": caller.name, "tenant": caller.tenant, "scopes": scopes, "via": caller.via}
    return answer(me)
