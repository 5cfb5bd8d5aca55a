"""Answers every error that the handlers of the app raise as a problem; see `problems`."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from agent_runtime.api.faults import faults_of
from agent_runtime.api.problems import problem, problem_of
from agent_runtime.domain.errors import AgentRuntimeError, InvalidInputError

_NO_SUCH_PAGE = "There is nothing at this path; /docs lists all paths."
_METHOD = re.compile(r"[A-Z]{1,20}")
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def install(app: FastAPI) -> None:
    """Answer every known error of the app as a problem. Unexpected errors are left to the edge."""

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, AgentRuntimeError)  # noqa: S101 - registered for it
        return problem_of(request.scope, error)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        detail = error.detail
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = _NO_SUCH_PAGE
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            method = request.method if _METHOD.fullmatch(request.method) else "That method"
            detail = f"{method} is not allowed here; the header Allow lists the allowed methods."
            return problem(request.scope, error.status_code, detail, headers={"Allow": _allowed_methods(request)})
        return problem(request.scope, error.status_code, detail, headers=error.headers)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
        # FastAPI puts the source of the value first: `query` or `path`.
        faults = faults_of([{**item, "loc": item["loc"][1:]} for item in error.errors()])
        return problem_of(request.scope, InvalidInputError(faults))

    app.add_exception_handler(AgentRuntimeError, on_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _allowed_methods(request: Request) -> str:
    """Return the methods of all routes of this path; the framework names only those of the first route."""
    routes = request.app.router.routes
    found = {name for name in _METHODS for route in routes if _is_for(route, {**request.scope, "method": name})}
    return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))


def _is_for(route: BaseRoute, scope: Mapping[str, Any]) -> bool:
    match, _ = route.matches({**scope})
    return match is Match.FULL
