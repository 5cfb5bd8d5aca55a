"""The sample of docs/cellery.md, in a browser and from another origin. Skipped without a browser."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser
from callers import serve_with_keys
from command_line import Folder
from serving import PATIENCE_S

pytestmark = pytest.mark.slow

SAMPLE = re.search(r"```js\n(.*?)```", (Path(__file__).parents[2] / "docs" / "cellery.md").read_text(), re.DOTALL)
BLOCK = """
<!doctype html><meta charset="utf-8"><pre id="log"></pre><pre id="asked"></pre><div id="buttons"></div>
<div id="results"></div><p id="error"></p>
<script type="module">
const at = (id) => document.getElementById(id);
const block = {
  text: PROMPT,
  log: (line) => at("log").append(line, "\\n"),
  ask: (text, buttons) => {
    at("asked").textContent = text;
    at("buttons").replaceChildren(...Object.entries(buttons).map(([name, act]) => {
      const button = document.createElement("button");
      button.textContent = name;
      button.onclick = act;
      return button;
    }));
  },
  showResult: (text) => {
    at("asked").textContent = "";
    at("buttons").replaceChildren();
    const result = document.createElement("p");
    result.textContent = text;
    at("results").append(result);
  },
  showError: (text) => { at("error").textContent = text; },
};
SAMPLE
run(block);
</script>
"""


class Page(BaseHTTPRequestHandler):
    """Answers every request with the page of the server."""

    text = ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


@contextmanager
def page_server() -> Iterator[tuple[str, type[Page]]]:
    """Serve a page on an origin of its own. Its text can be set later."""
    page = type("OwnPage", (Page,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}", page
    finally:
        server.shutdown()
        thread.join(PATIENCE_S)
        server.server_close()


def fill_page(url: str, prompt: str, key: str = "") -> str:
    """Return the page with the sample for a service at this URL."""
    assert SAMPLE is not None
    code = SAMPLE[1].replace("https://runtime.example.com", url)
    code = re.sub(r'const KEY = ".*?"', f'const KEY = "{key}"', code)
    assert url in code
    return BLOCK.replace("SAMPLE", code).replace("PROMPT", json.dumps(prompt))


@pytest.fixture
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: the sample needs Chromium, and this machine has none")
    browser = Browser(tmp_path_factory.mktemp("browser"))
    try:
        yield browser
        assert not browser.mistakes
    finally:
        browser.close()


@contextmanager
def show_block(browser: Browser, folder: Folder, prompt: str) -> Iterator[None]:
    """Open a page with a block for this prompt, and run a service that allows the origin of the page."""
    with page_server() as (origin, page):
        folder.env["CORS_ORIGINS"] = origin
        with folder.serve() as serving:
            page.text = fill_page(serving.url, prompt)
            browser.open(origin)
            yield


def test_a_block_is_planned_approved_and_shows_its_result_once(browser: Browser, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with show_block(browser, folder, "Add 15 and 27, then multiply the result by 2"):
        browser.until_shown("calculator.add(a=15, b=27)")
        browser.press("Approve")
        browser.until("document.querySelector('#results p') !== null")
        browser.until("[...document.querySelectorAll('#log')][0].innerText.includes('Step s2')")
        assert browser.value_of("document.querySelectorAll('#results p').length") == 1
        assert browser.value_of("document.querySelector('#results').innerText") == "84"
        assert "84" not in browser.value_of("document.querySelector('#log').innerText.split('Completed')[1] ?? ''")
        assert browser.value_of("document.querySelector('#error').innerText") == ""


def test_a_plan_that_is_rejected_ends_without_a_call(browser: Browser, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with show_block(browser, folder, "write hello to a.txt"):
        browser.press("Reject")
        browser.until("document.querySelector('#results p')?.innerText === 'rejected'")
    assert not list(folder.files.iterdir())


def test_a_question_of_the_service_is_shown_and_answered(browser: Browser, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (folder.files / "notes.txt").write_text("hello", encoding="utf-8")
    folder.write_registry()
    registry = folder.path / "tool_registry.yaml"
    registry.write_text(
        registry.read_text().replace(
            "- config:\n    root: files\n    server: filesystem\n",
            ("- config:\n    root: files\n    server: filesystem\n  tools:\n    write_file: {approval: call}\n"),
        )
    )
    with show_block(browser, folder, "read notes.txt and write it to b.txt"):
        browser.until_shown("filesystem.read_file")
        browser.press("Approve")
        browser.until_shown("filesystem.write_file {", '"content": "hello"')
        assert not (folder.files / "b.txt").exists()
        browser.press("Approve")
        browser.until("document.querySelector('#results p') !== null")
    assert (folder.files / "b.txt").read_text(encoding="utf-8") == "hello"


@pytest.mark.parametrize(("key", "said"), [("ar_wrong", "This page needs another key."), ("read", "may not do that.")])
def test_a_key_that_is_refused_is_told_as_such(browser: Browser, tmp_path: Path, key: str, said: str) -> None:
    with page_server() as (origin, page), serve_with_keys(tmp_path, server={"allowed_origins": [origin]}) as house:
        page.text = fill_page(house.service.url, "add 1 and 2", house.keys.get(key, key))
        browser.open(origin)
        browser.until_shown(said)
