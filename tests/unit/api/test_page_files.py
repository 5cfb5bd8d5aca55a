"""The files of the page: how large they are, and where the libraries among them come from."""

import gzip
import re
from importlib.resources import files

import pytest

from agent_runtime.api.console import ASSETS
from node_servers import FOLDER, install

VENDORED = {
    "preact.mjs": ("preact", "dist/preact.mjs"),
    "hooks.mjs": ("preact", "hooks/dist/hooks.mjs"),
    "preact.LICENSE": ("preact", "LICENSE"),
    "htm.mjs": ("htm", "dist/htm.mjs"),
    "htm.LICENSE": ("htm", "LICENSE"),
    "marked.mjs": ("marked", "lib/marked.esm.js"),
    "marked.LICENSE": ("marked", "LICENSE"),
    "dagre.mjs": ("@dagrejs/dagre", "dist/dagre.esm.js"),
    "dagre.LICENSE": ("@dagrejs/dagre", "LICENSE"),
}
"""The npm package of each vendored file, and its path there."""

_CONSOLE = files("agent_runtime.api.console")


def test_everything_that_the_page_loads_is_small() -> None:
    loaded = [
        _CONSOLE / "index.html",
        _CONSOLE / "docs.html",
        files("agent_runtime.api") / "client.js",
        *ASSETS.values(),
    ]
    sizes = {file.name: len(gzip.compress(file.read_bytes())) for file in loaded}
    assert sum(sizes.values()) < 150_000, sizes


def test_every_library_is_vendored_with_its_licence() -> None:
    assert {file.name for file in (_CONSOLE / "vendor").iterdir()} == VENDORED.keys()


def test_nothing_gives_markup_to_the_page_as_text() -> None:
    own = {path: file.read_text(encoding="utf-8") for path, file in ASSETS.items() if not path.startswith("vendor/")}
    writes = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|\beval\b|new Function"
    )
    assert [path for path, text in own.items() if writes.search(text)] == []
    assert [path for path, text in own.items() if "dangerouslySetInnerHTML" in text] == ["ui.js"], "which removes it"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", VENDORED)
def test_the_libraries_are_as_published_in_the_version_of_the_lock_file(name: str) -> None:
    package, path = VENDORED[name]
    install(package, path)
    published = FOLDER / "node_modules" / package / path
    assert (_CONSOLE / "vendor" / name).read_bytes() == published.read_bytes()
