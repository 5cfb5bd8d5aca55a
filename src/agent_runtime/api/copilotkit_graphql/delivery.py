"""The answer of an operation in parts, in the incremental format that the clients of CopilotKit read.

graphql-core names the place of each part by an id, as newer drafts say. These clients expect the format before that:
the path of each part, and for items of a list the index of the first one at its end.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from graphql import ExecutionResult, ExperimentalIncrementalExecutionResults

CONTENT_TYPE = 'multipart/mixed; boundary="-"'
END = b"\r\n-----\r\n"


def format_part(value: Any) -> bytes:
    """Return a part of the body."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    head = f"\r\n---\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def format_whole(result: ExecutionResult) -> dict[str, Any]:
    """Return the answer of an operation that comes as a whole."""
    errors = {"errors": [error.formatted for error in result.errors]} if result.errors else {}
    return {**errors, "data": result.data}


async def list_parts(results: ExperimentalIncrementalExecutionResults) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the parts of an answer. Closing the iterator ends the execution."""
    initial = results.initial_result
    paths = {one.id: [*one.path] for one in initial.pending}
    data: Any = initial.data
    async with aclosing(results.subsequent_results) as subsequent:
        errors = {"errors": [error.formatted for error in initial.errors]} if initial.errors else {}
        yield {**errors, "data": data, "hasNext": True}
        lengths: dict[tuple[str | int, ...], int] = {}
        async for payload in subsequent:
            paths |= {one.id: [*one.path] for one in payload.pending or ()}
            parts = [_place(one.formatted, paths, lengths, data) for one in payload.incremental or ()]
            for one in payload.completed or ():
                path = paths.pop(one.id, [])
                if one.errors:
                    parts.append({"data": None, "path": path, "errors": [error.formatted for error in one.errors]})
            if parts:
                yield {"incremental": parts, "hasNext": payload.has_next}
            elif not payload.has_next:
                yield {"hasNext": False}


def _place(
    part: Any, paths: dict[str, list[str | int]], lengths: dict[tuple[str | int, ...], int], data: Any
) -> dict[str, Any]:
    """Return a part with its path in place of its id."""
    path = [*paths[part["id"]], *part.get("subPath", ())]
    errors = {"errors": part["errors"]} if part.get("errors") else {}
    if "items" not in part:
        return {"data": part["data"], "path": path, **errors}
    place = tuple(path)
    index = lengths[place] if place in lengths else _count_items(data, path)
    lengths[place] = index + len(part["items"])
    return {"items": part["items"], "path": [*path, index], **errors}


def _count_items(data: Any, path: Sequence[str | int]) -> int:
    """Return how many items of a list were in the first part; 0 for a list that came later."""
    for name in path:
        try:
            data = data[name]
        except (KeyError, IndexError, TypeError):
            return 0
    return len(data) if isinstance(data, list) else 0
