"""Additions to /openapi.json beyond the signatures of the handlers: refusals, and the scopes that a key needs."""

from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic_core import to_json
from starlette.responses import Response

from agent_runtime.api.late_doors import flatten
from agent_runtime.api.problems import Problem
from agent_runtime.api.scopes import RouteScopes, requires

_REF = "#/components/schemas/{model}"
_MEANING = {
    400: "The request cannot be read",
    401: "No valid key, or no valid ticket",
    403: "The key does not have the scope, or its holder took part in the plan that it would approve",
    404: "No such task",
    409: "Not allowed in the status that the task has now",
    412: "The plan is no longer the one that `If-Match` names",
    413: "The body is too large",
    415: "The body is not JSON in UTF-8",
    422: "The input is wrong; `errors` names every fault",
    428: "The decision must name the digest of the plan",
    503: "Not now; see `Retry-After`",
}


router = APIRouter(include_in_schema=False)


@router.get("/openapi.json")
@requires()
async def show_description(request: Request) -> Response:
    """Return the OpenAPI document; `/docs` shows it to people."""
    return Response(to_json(request.app.openapi()), media_type="application/json")


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses for these error statuses."""
    return {status: {"model": Problem, "description": _MEANING[status]} for status in statuses}


def install(app: FastAPI, routes: RouteScopes, *, with_keys: bool) -> None:
    """Extend the OpenAPI document: problems with their media type, and the scopes that a key needs."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app, routes if with_keys else None)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _describe(app: FastAPI, routes: RouteScopes | None) -> dict[str, Any]:
    servers = [{"url": app.root_path}] if app.root_path else None
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=flatten(app.routes), servers=servers
    )
    components = schema["components"]["schemas"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if routes is not None:
                _require(operation, routes.needed_scopes({"type": "http", "method": method.upper(), "path": path}))
            _tidy(operation["responses"])
    if routes is not None:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    return schema


def _require(operation: dict[str, Any], scopes: tuple[str, ...]) -> None:
    if scopes:
        operation["security"] = [{"key": [scope]} for scope in scopes]
        operation["responses"] |= {str(status): {"description": _MEANING[status]} for status in (401, 403)}


def _tidy(responses: dict[str, Any]) -> None:
    """Describe every error response as a problem, with the right media type."""
    for status, response in responses.items():
        if int(status) >= 400:  # noqa: PLR2004 - the first error status of HTTP
            reference = {"$ref": _REF.format(model="Problem")}
            response["content"] = {"application/problem+json": {"schema": reference}}
