"""A plain page at `/`, and the reference at `/docs`: files without a build step that load nothing from elsewhere."""

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

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

    async def send_file() -> Response:
        return Response(content, headers=_HEADERS, media_type=kind)

    router.add_api_route(path, send_file, methods=["GET"])


_add("/", "index.html")
_add("/docs", "docs.html")
for _name in ("style.css", "key.js", "text.js", "index.js", "docs.js"):
    _add(f"/console/{_name}", _name)
