"""A real browser, for tests of web pages."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from serving import PATIENCE_S
from waiting import eventually_sync

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of a real browser, controlled over two pipes (`--remote-debugging-pipe`).

    `mistakes` are uncaught exceptions of the page, and violations of its security policy.
    """

    def __init__(self, folder: Path) -> None:
        heard_by, self._write = _pipe()
        self._read, said_by = _pipe()
        # Chromium reads from descriptor 3 and writes to 4.
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
        self.mistakes: list[str] = []
        self._rest = b""
        page = next(each for each in self._call("Target.getTargets")["targetInfos"] if each["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self._call("Runtime.enable")
        self._call("Log.enable")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def before_each_page(self, code: str) -> None:
        self._call("Page.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=code)

    def value_of(self, code: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=code, returnByValue=True)
        return answer["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true, at most PATIENCE_S."""
        try:
            eventually_sync(lambda: self.value_of(code), PATIENCE_S)
        except AssertionError as late:
            raise AssertionError(code, self.value_of("document.body.innerText"), self.mistakes) from late

    def until_shown(self, *texts: str) -> None:
        """Wait until the page shows all of these texts, as text."""
        for text in texts:
            self.until(f"document.body.innerText.includes({json.dumps(text)})")

    def press(self, text: str) -> None:
        """Wait for the button with this text, and press it by keyboard."""
        button = f"[...document.querySelectorAll('button')].find((one) => one.innerText === {json.dumps(text)})"
        self.until(f"{button}?.disabled === false")
        self.value_of(f"{button}.focus()")
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    def write(self, label: str, text: str) -> None:
        """Type text into the field with this label."""
        labels = f"[...document.querySelectorAll('label')].find((one) => one.innerText === {json.dumps(label)})"
        self.until(f"{labels} !== undefined")
        self.value_of(f"document.getElementById({labels}.htmlFor).focus()")
        self._call("Input.insertText", text=text)

    def picture(self, file: Path, *, scheme: str = "light", width: int = 1000) -> None:
        """Return the whole page as a PNG, for debugging."""
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        height = max(400, self.value_of("document.documentElement.scrollHeight"))
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))
        self._call("Emulation.clearDeviceMetricsOverride")

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
                assert "result" in answer, answer
                return answer["result"]
            self._notice(answer)

    def _notice(self, message: Any) -> None:
        """Record errors of the page, except refused calls, which the page itself reports."""
        if message["method"] == "Runtime.exceptionThrown":
            self.mistakes.append(str(message["params"]["exceptionDetails"]))
        entry = message["params"].get("entry", {})
        if entry.get("level") == "error" and entry["source"] != "network":
            self.mistakes.append(entry["text"])


def _pipe() -> tuple[int, int]:
    """Open a pipe whose descriptors do not collide with those that the browser uses."""
    ends = os.pipe()
    high = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 20), fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 20)
    for end in ends:
        os.close(end)
    return high
