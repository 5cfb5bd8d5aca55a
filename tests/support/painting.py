"""A server that answers with images, in the registry of a house."""

import json
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent_runtime.domain.tools import StdioServer
from harness import House
from odd_servers import Script
from pictures import make_png
from serving import Service, journal_of

RED, BLUE = make_png(color=(200, 30, 30)), make_png(64, 40, color=(30, 30, 200))
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hacked=1</script></svg>'
HTML = b"<!doctype html><script>window.hacked=1</script>"
MANY = 1000


def image_block(data: bytes, media_type: str | None = "image/png") -> dict[str, Any]:
    """Return the content block of an image."""
    block = {"type": "image", "data": b64encode(data).decode()}
    return block if media_type is None else block | {"mimeType": media_type}


CONTENTS: dict[str, list[dict[str, Any]]] = {
    "red": [{"type": "text", "text": "Here it is:"}, image_block(RED)],
    "blue": [image_block(BLUE)],
    "both": [image_block(RED), image_block(BLUE)],
    "hostile": [
        image_block(SVG),
        image_block(SVG, "image/svg+xml"),
        image_block(HTML, "text/html"),
        {"type": "image", "data": "!!!", "mimeType": "image/png"},
    ],
    "broken": [image_block(RED[:40])],
    "empty": [],
    "many": [image_block(make_png(color=(at // 256, at % 256, 0))) for at in range(MANY)],
}
"""What each tool of the server answers with."""


def add_painter(house: House) -> None:
    """Make the server `ledger` of the house one whose tools answer with images."""
    answers = {
        name: f'{{"jsonrpc":"2.0","id":$ID,"result":{json.dumps({"content": content})}}}'
        for name, content in CONTENTS.items()
    }
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in CONTENTS]
    server = Script(pages={"first": {"tools": tools}}, answers=answers).over_stdio(house.folder)
    assert isinstance(server, StdioServer)
    policy = {"*": {"effect": "read", "open_world": False}}
    house.write_registry(config=server.config.model_dump(mode="json"), tools=policy)


@contextmanager
def serve_painter(folder: Path, **settings: Any) -> Iterator[Service]:
    """Run a service with the built-in servers and the one that answers with images."""
    house = House(folder)
    add_painter(house)
    registry = house.settings.tool_registry.read_text(encoding="utf-8")
    service = Service(folder, **settings)
    house.settings.tool_registry.write_text(registry, encoding="utf-8")
    with service:
        yield service


def images_of(service: Service, task_id: str) -> list[dict[str, Any]]:
    """Return the images that the journal of a task names."""
    returned = [event["data"]["result"] for event in journal_of(service, task_id) if event["type"] == "tool.returned"]
    return [image for result in returned for image in result.get("images", ())]


def painting_plan(*tools: str, then: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a plan that calls these tools one after the other; `then` is a last step."""
    steps: list[dict[str, Any]] = [
        {"id": tool, "kind": "tool", "server": "ledger", "tool": tool, "arguments": {}} for tool in tools
    ]
    steps += [then] if then else []
    for before, step in pairwise(steps):
        step["depends_on"] = [before["id"]]
    return {"goal": "paint", "steps": steps}
