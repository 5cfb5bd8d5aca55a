"""The web page at `/` and the API reference at `/docs`: files without a build step or external assets."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from agent_runtime.api.scopes import requires

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def _add(path: str, name: str) -> None:
    content = files(__name__).joinpath(name).read_bytes()
    kind = _TYPES[name.rpartition(".")[2]]

    @requires()
    async def send_file() -> Response:
        return Response(content, headers=_HEADERS, media_type=kind)

    router.add_api_route(path, send_file, methods=["GET"])


FILES = (
    "style.css",
    "api.js",
    "decide.js",
    "docs.js",
    "follow.js",
    "index.js",
    "key.js",
    "page.js",
    "plan.js",
    "planning.js",
    "task.js",
    "text.js",
)
"""Files that the two pages load from `/console/`."""

_add("/", "index.html")
_add("/docs", "docs.html")
for _name in FILES:
    _add(f"/console/{_name}", _name)
