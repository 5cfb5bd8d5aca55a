"""Makes the screenshots of the documentation: a service of its own with a few tasks, and a browser that looks at it.

    uv run python docs/_site/screenshots.py [FOLDER]

The images go to `docs/images`, or to FOLDER. It needs Chromium, and installs nothing.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from agent_runtime.client import Client

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_S = 60

DONE = ("Calculate 19 * 23", "Read the first 5 lines of notes.txt")
WAITING = ("Add a todo to call the bank", "List the files")
SHOWN = "Read notes.txt, count its words and save the count to count.txt"


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Run a service with the example registry in a folder, and yield its address."""
    shutil.copy(ROOT / "tool_registry.yaml", folder)
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    (folder / "sample_data" / "count.txt").write_text("112\n", encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "agent_runtime", "serve", "--port", str(port)]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            if not any(f":{port}" in line for line in process.stdout or ()):
                sys.exit("The service did not start.")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def prepare_tasks(client: Client) -> str:
    """Complete some tasks, have others wait, and return the id of the one to show."""
    for prompt in DONE:
        task_id = client.submit(prompt)["task_id"]
        client.approve(task_id, client.wait(task_id)["plan_digest"])
        client.wait(task_id)
    for prompt in (*WAITING, SHOWN):
        task_id = client.submit(prompt)["task_id"]
        client.wait(task_id)
    return task_id


def take(page: Page, address: str, file: Path) -> None:
    """Save a picture of a task whose plan replaces a file and awaits approval."""
    page.goto(address)
    page.get_by_role("button", name="Approve").wait_for()
    page.get_by_text("which exists").wait_for()
    page.locator(".picture svg").wait_for()
    page.screenshot(path=file)


def main() -> None:
    """Make the screenshots."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    if CHROMIUM is None:
        sys.exit("This needs Chromium: install it with the package manager of your system.")
    with tempfile.TemporaryDirectory() as place, serve(Path(place)) as url, sync_playwright() as playwright:
        with Client(url) as client:
            address = f"{url}/#/tasks/{prepare_tasks(client)}"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        desk = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme="light")
        take(desk, address, folder / "page.png")
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        take(phone, address, folder / "page-phone.png")
        browser.close()


if __name__ == "__main__":
    main()
