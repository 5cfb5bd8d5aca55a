"""The page at `/`, in a browser and by its parts. Skipped, loudly, where there is no Chromium or Node."""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.text import visible
from node_servers import NODE
from serving import PATIENCE_S, Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAN = {
    "steps": [
        {
            "id": "s1",
            "kind": "tool",
            "title": "Save \u200bit",
            "server": "filesystem",
            "tool": "write_file",
            "arguments": {"path": "report\u202egpj.txt", "content": "x"},
        }
    ]
}


class Browser:
    """One page of a real browser, spoken to over a pair of pipes (`--remote-debugging-pipe`)."""

    def __init__(self, folder: Path) -> None:
        heard_by, self._write = _pipe()
        self._read, said_by = _pipe()
        # Chromium listens on descriptor 3 and answers on 4.
        wired = f'exec {CHROMIUM} "$@" 3<&{heard_by} 4>&{said_by}'
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        self._process = subprocess.Popen(
            ["bash", "-c", wired, "browser", *words, "about:blank"],
            pass_fds=(heard_by, said_by),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(heard_by)
        os.close(said_by)
        self._session: dict[str, str] = {}
        self._calls = 0
        self._rest = b""
        page = next(each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def value_of(self, code: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=code, returnByValue=True)
        return answer["result"].get("value")

    def until(self, code: str) -> None:
        """Wait for something to be so, PATIENCE_S at most."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.value_of(code):
            assert time.monotonic() < deadline, (code, self.value_of("document.body.innerText"))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        os.close(self._read)
        os.close(self._write)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._calls += 1
        call = {"id": self._calls, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(call).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                read = os.read(self._read, 65536)
                assert read, "the browser is gone"
                self._rest += read
            message, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._calls:
                return answer["result"]


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are no descriptors that the browser wants for itself."""
    ends = os.pipe()
    high = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 20), fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 20)
    for end in ends:
        os.close(end)
    return high


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: the page needs Chromium, and this machine has none")
    browser = Browser(tmp_path)
    try:
        yield browser
    finally:
        browser.close()


@pytest.mark.slow
def test_the_page_follows_what_happens_elsewhere_and_shows_what_would_hide(service: Service, browser: Browser) -> None:
    task_id = service.submit(prompt="Save\u202e it", plan=PLAN)
    browser.open(service.url)
    browser.until("document.querySelector('#tasks pre') !== null")
    shown = browser.value_of("document.querySelector('#tasks li').innerText")
    assert r"Save\u202e it" in shown
    assert r'1. Save \u200bit — filesystem.write_file(path="report\u202egpj.txt", content="x")' in shown
    browser.value_of("window.row = document.querySelector('#tasks li')")
    service.approve(task_id)
    browser.until("document.querySelector('.status').innerText === 'completed'")
    browser.until(r"document.querySelector('#tasks li').innerText.includes('to report\\u202egpj.txt.')")
    assert browser.value_of("window.row.isConnected && window.row.firstChild.open")


@pytest.mark.slow
def test_an_event_source_gets_every_line_and_does_not_come_back_after_the_last(
    service: Service, browser: Browser
) -> None:
    task_id = service.submit(plan=PLAN)
    browser.open(service.url)
    browser.until("document.querySelector('#tasks li') !== null")
    browser.value_of(f"window.stream = new EventSource('/v1/tasks/{task_id}/stream')")
    browser.value_of("window.lines = []; stream.onmessage = ({data}) => lines.push(data)")
    service.approve(task_id)
    browser.until("stream.readyState === EventSource.CLOSED")
    lines = browser.value_of("lines")
    assert lines[-1] == "[DONE]"
    assert lines.count("[DONE]") == 1
    assert any(line.startswith("Step s1 started: Save ") for line in lines)


@pytest.mark.skipif(NODE is None, reason="NOT TESTED: the page's own rule needs node, and this machine has none")
def test_the_page_makes_visible_what_the_service_does() -> None:
    text = "plain é 日本 \U0001f600 a\u202eb\u200bc\u2028\u2029\xa0\x1b\x7f\x9b\ufeff\ud800\U000e0041\u3000 d\n\te"
    source = files("agent_runtime.api.console").joinpath("text.js").read_text(encoding="utf-8")
    code = f"{source}\nprocess.stdout.write(visible({json.dumps(text)}));\n"
    words = [str(NODE), "--input-type=module"]
    done = subprocess.run(words, input=code, check=True, capture_output=True, encoding="utf-8", timeout=PATIENCE_S)
    assert done.stdout == visible(text, keep="\n\t")
