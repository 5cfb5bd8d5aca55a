"""A real browser, for tests of web pages: Chromium, driven by Playwright."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import ConsoleMessage, Error, sync_playwright

from serving import PATIENCE_S
from waiting import eventually_sync

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

DESKTOP = (1440, 900)
PHONE = (390, 844)
WIDE = (3840, 2160)


class Browser:
    """One page of a real browser.

    `page` is Playwright's, for what has no method here. `mistakes` are uncaught exceptions of the page, and violations
    of its security policy.
    """

    def __init__(
        self, folder: Path, *, size: tuple[int, int] = DESKTOP, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        self.mistakes: list[str] = []
        self._playwright = sync_playwright().start()
        self._context = self._playwright.chromium.launch_persistent_context(
            folder,
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
            viewport={"width": size[0], "height": size[1]},
            has_touch=size == PHONE,
            color_scheme=scheme,
            reduced_motion="reduce",
        )
        self._context.set_default_timeout(1000 * PATIENCE_S)
        self.page = self._context.pages[0]
        self.page.on("pageerror", lambda error: self.mistakes.append(str(error)))
        self.page.on("console", self._notice)
        self._session = self._context.new_cdp_session(self.page)

    def open(self, url: str) -> None:
        self.page.goto(url, wait_until="commit")

    def before_each_page(self, code: str) -> None:
        self.page.add_init_script(code)

    def value_of(self, code: str) -> Any:
        """Run code in the page as in its console, and return its value."""
        answer = self._session.send("Runtime.evaluate", {"expression": code, "returnByValue": True})
        return answer["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true, at most PATIENCE_S."""
        try:
            eventually_sync(lambda: self._is_true(code), PATIENCE_S)
        except AssertionError as late:
            raise AssertionError(code, self.value_of("document.body.innerText"), self.mistakes) from late

    def until_shown(self, *texts: str) -> None:
        """Wait until the page shows all of these texts, as text."""
        for text in texts:
            self.until(f"document.body.innerText.includes({json.dumps(text)})")

    def press(self, text: str) -> None:
        """Wait for the button with this text, and press it by keyboard."""
        button = self.page.get_by_role("button", name=text, exact=True).first
        button.focus()
        button.press("Enter")

    def write(self, label: str, text: str) -> None:
        """Type text into the field with this label."""
        self.page.get_by_label(label, exact=True).first.focus()
        self.page.keyboard.insert_text(text)

    def picture(self, file: Path) -> None:
        """Save the visible part of the page as a PNG, for debugging."""
        self.page.screenshot(path=file)

    def close(self) -> None:
        self._context.close()
        self._playwright.stop()

    def _is_true(self, code: str) -> bool:
        try:
            return bool(self.value_of(code))
        except Error:  # the page is just being replaced by another
            return False

    def _notice(self, message: ConsoleMessage) -> None:
        """Record errors that the browser reports, except refused requests, which the page itself shows."""
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.mistakes.append(message.text)
