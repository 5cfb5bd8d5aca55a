"""The page of the service in a browser: its addresses, what people do there, and what axe finds in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import Browser
from node_servers import FOLDER, install
from serving import Service

STATUS = "document.querySelector('.task .status')?.innerText"
"""The status of the task that is shown."""


@contextmanager
def serve(folder: Path, **settings: Any) -> Iterator[Service]:
    """Run a service with the registry that is already in the folder, if there is one."""
    registry = folder / "tool_registry.yaml"
    written = registry.read_text(encoding="utf-8") if registry.exists() else None
    service = Service(folder, **settings)
    if written:
        registry.write_text(written, encoding="utf-8")
    with service:
        yield service


def open_view(browser: Browser, service: Service, address: str = "") -> None:
    """Open a view of the page, and wait until it is there."""
    browser.open(f"{service.url}/#/{address}")
    browser.until("document.querySelector('main') !== null")


def open_task(browser: Browser, service: Service, task_id: str) -> None:
    """Open a task by its address, and wait until it is shown."""
    open_view(browser, service, f"tasks/{task_id}")
    until_task(browser, task_id)


def until_task(browser: Browser, task_id: str) -> None:
    """Wait until this task is shown."""
    browser.until(f"document.querySelector('[data-task={task_id}].task') !== null")


def submit(browser: Browser, service: Service, prompt: str) -> None:
    """Submit a task on the page. It is then shown."""
    open_view(browser, service, "new")
    browser.write("What should be done?", prompt)
    browser.press("Plan it")


def sign_in(browser: Browser, key: str) -> None:
    """Give the page a key, which it asks for."""
    browser.page.get_by_label("API key").fill(key)
    browser.press("Sign in")


def rows(browser: Browser) -> list[str]:
    """Return the prompts in the list, in order."""
    shown: list[str] = browser.value_of("[...document.querySelectorAll('.row .prompt')].map((one) => one.textContent)")
    return shown


def until_rows(browser: Browser, *prompts: str) -> None:
    """Wait until the list has exactly the tasks with these prompts, in this order."""
    shown = "[...document.querySelectorAll('.row .prompt')].map((one) => one.textContent)"
    browser.until(f"JSON.stringify({shown}) === JSON.stringify({json.dumps(prompts)})")


def find_barriers(browser: Browser) -> list[Any]:
    """Return what axe finds in the page as it is shown: each rule with the elements that break it."""
    script = install("axe-core", "axe.min.js").read_text(encoding="utf-8")
    assert (FOLDER / "node_modules" / "axe-core").exists()
    browser.value_of(f"{script}; true")
    found = browser.page.evaluate_handle("axe.run()").json_value()
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


def overflows(browser: Browser) -> Any:
    """Return the elements that are wider than the page, which would have to be scrolled sideways."""
    wide = "document.documentElement.scrollWidth > innerWidth"
    culprits = (
        "[...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1)"
    )
    return browser.value_of(f"JSON.stringify({wide} ? {culprits}.map((one) => one.outerHTML.slice(0, 100)) : [])")
