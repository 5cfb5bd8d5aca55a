"""The web page at `/` and the API reference at `/docs`: files without a build step or external assets."""

import gzip
import json
import posixpath
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter, Request
from starlette.responses import Response

from agent_runtime.api.scopes import requires

router = APIRouter(include_in_schema=False)

_HERE = files(__name__)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "mjs": "text/javascript"}
_IMPORT_MAP = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)
_IMPORT = re.compile(r'^(?:import|export)\b[\s\w*{},$]*"([^"]+)"', re.MULTILINE)


def _policy(page: bytes) -> str:
    """Return the Content-Security-Policy of a page. Of inline scripts it allows only the page's own import map, which
    names the vendored libraries.
    """
    hashes = (f" 'sha256-{b64encode(sha256(text).digest()).decode()}'" for text in _IMPORT_MAP.findall(page))
    return (
        f"default-src 'none'; script-src 'self'{''.join(hashes)}; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add(path: str, name: str, content: bytes) -> None:
    """Add a route for a file, which a browser that has it need not load again."""
    kind = _TYPES[name.rpartition(".")[2]]
    tag = f'"{sha256(content).hexdigest()[:32]}"'
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _policy(content if kind == "text/html" else b""),
        "ETag": tag,
        "Vary": "Accept-Encoding",
    }

    @cache
    def compress() -> bytes:
        return gzip.compress(content, mtime=0)

    @requires()
    async def send_file(request: Request) -> Response:
        if tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return Response(compress(), headers={**headers, "Content-Encoding": "gzip"}, media_type=kind)
        return Response(content, headers=headers, media_type=kind)

    router.add_api_route(path, send_file, methods=["GET"])


def _assets(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    """Yield the files that the pages load, with their paths below `/console/`."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_dir():
            yield from _assets(file, f"{path}{file.name}/")
        elif file.name.endswith((".css", ".js", ".mjs")):
            yield f"{path}{file.name}", file


def list_modules(start: str, contents: Mapping[str, bytes], names: Mapping[str, str]) -> list[str]:
    """Return the paths of all modules that the one at `start` imports, directly or not, and its own.

    `contents` are the files by their paths, and `names` are the paths of libraries by the names they are imported by.
    """
    found = {start: None}
    waiting = [start]
    while waiting:
        module = waiting.pop(0)
        for target in _IMPORT.findall(contents[module].decode()):
            path = names.get(target) or posixpath.join(posixpath.dirname(module), target)
            path = posixpath.normpath(path)
            if path not in found:
                found[path] = None
                waiting.append(path)
    return list(found)


def _index(contents: Mapping[str, bytes]) -> bytes:
    """Return the page, which has the browser load all its modules at once instead of one after the other."""
    page = (_HERE / "index.html").read_bytes()
    (imports,) = _IMPORT_MAP.findall(page)
    modules = list_modules("console/main.js", contents, json.loads(imports)["imports"])
    links = "".join(f'\n    <link rel="modulepreload" href="{path}">' for path in modules)
    return page.replace(b"\n    <!-- modules -->", links.encode())


ASSETS = dict(_assets(_HERE))
"""The files below `/console/`. They use the client, which has an address for others too."""

_contents = {f"console/{path}": file.read_bytes() for path, file in ASSETS.items()}
_contents["client.js"] = (files("agent_runtime.api") / "client.js").read_bytes()

_add("/", "index.html", _index(_contents))
_add("/docs", "docs.html", (_HERE / "docs.html").read_bytes())
for _path, _content in _contents.items():
    _add(f"/{_path}", _path, _content)
