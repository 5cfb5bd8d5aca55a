"""The feed of all tasks over Server-Sent Events: all events in one durable order. Clients can resume it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic.json_schema import SkipJsonSchema
from starlette.responses import Response

from agent_runtime.api.bodies import FEED_CURSOR, FeedQuery
from agent_runtime.api.deps import CurrentCaller, Service
from agent_runtime.api.frames import feed_frame, join_frames
from agent_runtime.api.openapi import refusals
from agent_runtime.api.scopes import requires
from agent_runtime.api.stream import KEEP_ALIVE, StreamResponse, idle_s
from agent_runtime.domain.feed import FeedEntry

router = APIRouter(prefix="/v1/events", tags=["Tasks"])

_LAST = Header(
    alias="Last-Event-ID", description="The id of the last frame that was seen.", json_schema_extra=FEED_CURSOR
)
_FRAMES = "One frame for each event of each task, and for each task that was deleted; it has no end"


@router.get(
    "/stream",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}, "description": _FRAMES}, **refusals(422, 503)},
)
@requires("read")
async def stream_feed(
    request: Request,
    runtime: Service,
    caller: CurrentCaller,
    query: Annotated[FeedQuery, Query()],
    last_event_id: Annotated[str | SkipJsonSchema[None], _LAST] = None,
) -> Response:
    """Stream the events of all tasks as Server-Sent Events, from the beginning or after a given frame."""
    pages = await runtime.tasks.subscribe(caller, last_event_id or query.after, idle_s(runtime.settings.limits))
    return StreamResponse(request.app.state.streams, _bodies(pages))


async def _bodies(pages: AsyncGenerator[tuple[FeedEntry, ...], None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(pages):
        async for entries in pages:
            if not entries:
                yield KEEP_ALIVE
            for body in join_frames(map(feed_frame, entries)):
                yield body
