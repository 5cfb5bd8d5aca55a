"""The route class of handlers with a JSON body: that of FastAPI, with our rules for bodies."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Scope

from agent_runtime.api.bodies import Body
from agent_runtime.api.json_bodies import judge_body
from agent_runtime.api.task_ids import known_form
from agent_runtime.domain.values import JsonValue


class JudgedRequest(Request):
    """A request whose JSON body is validated already: FastAPI gets the finished value instead of the bytes.

    `value` is the parsed body as it was sent.
    """

    def __init__(self, scope: Scope, receive: Receive, made: Body, value: JsonValue) -> None:
        # Without a content type FastAPI expects JSON. The edge has checked the type, and an empty body needs none.
        headers = [field for field in scope["headers"] if field[0] != b"content-type"]
        super().__init__({**scope, "headers": headers}, receive)
        self._made = made
        self.value = value

    async def body(self) -> bytes:
        return b"{}"  # FastAPI only checks that there is one; no body counts as an empty object

    async def json(self) -> Body:
        return self._made


class JsonRoute(APIRoute):
    """Reads a body by the rules of `json_bodies`, and validates it with `Body.read`.

    Handlers without a body are left to FastAPI.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        kind = self.body_field.field_info.annotation
        assert isinstance(kind, type)  # noqa: S101 - fails when the app is created
        assert issubclass(kind, Body)  # noqa: S101 - likewise

        async def handle_judged(request: Request) -> Response:
            if "task_id" in request.path_params:
                known_form(request.path_params["task_id"])

            made, value = await judge_body(request, lambda value: (kind.read(value), value))
            return await handle(JudgedRequest(request.scope, request.receive, made, value))

        return handle_judged
