"""A React page with CopilotKit, unmodified, in a real browser goes every way, like the clients without a page."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, Browser
from front_ends import Shown
from journeys import BEGINNING, JOURNEYS, STORY, Stage, ask, set_up
from node_servers import install_packages
from serving import Service

FOLDER = Path(__file__).parent / "react"
ESBUILD = FOLDER / "node_modules" / ".bin" / "esbuild"
ASSETS = [f"--loader:.{kind}=dataurl" for kind in ("woff", "woff2", "ttf")]
NAMES = {"approve": "Approve", "deny": "Reject", "cancel": "Cancel"}

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: a page with CopilotKit needs Chromium")


class _Files(SimpleHTTPRequestHandler):
    def log_request(self, *_: Any) -> None:
        """Write nothing."""


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and yield their origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Page:
    """The page, as a front end. It finds its task again by its address, when it is loaded anew."""

    def __init__(self, browser: Browser, origin: str) -> None:
        self._browser, self._origin = browser, origin
        self.mistakes = browser.mistakes
        self._threads = 0

    def ask(self, prompt: str) -> Shown:
        self._threads += 1
        self._browser.open("about:blank")
        self._browser.open(f"{self._origin}/index.html#thread-{self._threads}")
        self._browser.until("!!document.querySelector('button:not([disabled])')")
        self._browser.write("Task", prompt)
        self._browser.press("Send")
        return self._wait()

    def answer(self, decision: str) -> Shown:
        self._browser.press(NAMES.get(decision, decision))
        self._browser.until("!document.querySelector('pre')")
        return self._wait()

    def begin(self, decision: str) -> None:
        self._browser.press(NAMES.get(decision, decision))

    def answer_and_leave(self, decision: str, seen: str) -> None:
        self.begin(decision)
        self._browser.until_shown(seen)
        self.leave()

    def leave(self) -> None:
        self._address = self._browser.page.url
        self._browser.open("about:blank")

    def come_back(self) -> Shown:
        address = self._browser.page.url
        if address == "about:blank":
            self._browser.open(self._address)
        else:
            self._browser.page.reload(wait_until="commit")
        return self._wait()

    def _wait(self) -> Shown:
        """Wait for a question or the end, and return what is shown."""
        ends = ["completed", "failed", "rejected", "cancelled"]
        told = f"{ends}.includes(document.querySelector('p')?.innerText.split(' ')[0])"
        whole = "!document.querySelector('button').disabled"  # the messages come once more, after the state
        self._browser.until(f"!!document.querySelector('pre') || ({told} && {whole})")
        status = str(self._browser.value_of("document.querySelector('p').innerText.split(' ')[0]"))
        said = self._browser.value_of("[...document.querySelectorAll('li')].map((item) => item.innerText)")
        question = self._browser.value_of("document.querySelector('pre')?.innerText")
        asked = {"awaiting_approval": ("confirmation",), "needs_attention": ("outcome_unknown",)}
        texts = [line.removeprefix("assistant: ") for line in said if line.startswith("assistant: ")]
        return Shown(
            status,
            tuple(line.removeprefix("tool: ") for line in said if line.startswith("tool: ")),
            tuple(text for text in texts if text.startswith(BEGINNING)),
            asked[status] if question else (),
            sum(text.startswith("1. ") for text in texts),
        )

    def close(self) -> None:
        self._browser.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    install_packages(FOLDER, "--legacy-peer-deps")  # 24 s and 490 MB, once
    folder = tmp_path_factory.mktemp("page")
    page = folder / "page"
    page.mkdir()
    command = [str(ESBUILD), "page.jsx", "--bundle", "--format=iife", "--jsx=automatic", f"--outfile={page}/page.js"]
    production = ['--define:process.env.NODE_ENV="production"', *ASSETS, "--loader:.css=empty"]
    subprocess.run([*command, *production], cwd=FOLDER, check=True, capture_output=True, timeout=200)

    def open_page(service: Service) -> Page:
        runtime = f"<script>window.runtimeUrl = '{service.url}/copilotkit'</script>"
        html = f"<!doctype html><div id=root></div>{runtime}<script src=page.js></script>"
        (page / "index.html").write_text(html, encoding="utf-8")
        return Page(Browser(folder / "profile"), origin)

    with serve_folder(page) as origin, set_up(folder, open_page, allowed_origins=[origin]) as stage:
        yield stage
        assert isinstance(stage.front, Page)
        told = ("[CopilotKit] Error", "network error")  # of runs that fail, or are lost with the service
        assert [mistake for mistake in stage.front.mistakes if not any(text in mistake for text in told)] == []


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("journey", JOURNEYS)
def test_a_page_with_copilotkit_goes_every_way(stage: Stage, journey: str) -> None:
    JOURNEYS[journey](stage)


@needs_browser
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_page_shows_what_a_model_writes_while_it_writes_and_the_whole_of_it_once(stage: Stage) -> None:
    assert isinstance(stage.front, Page)
    stage.models.hold()
    ask(stage, "Please tell")
    stage.front.answer_and_leave("approve", BEGINNING)
    stage.models.release()
    shown = stage.front.come_back()
    assert (shown.status, shown.texts) == ("completed", (STORY,))


def test_the_page_of_the_test_is_the_one_that_the_documentation_shows() -> None:
    shown = (Path(__file__).parents[2] / "docs" / "reference" / "copilotkit.md").read_text(encoding="utf-8")
    page = (FOLDER / "page.jsx").read_text(encoding="utf-8")
    chat = page[page.index("function Question") : page.index("createRoot(document")].strip()
    assert chat in shown
