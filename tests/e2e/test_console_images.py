"""Images of results on the page: loaded with its key, shown from memory, and to save; also under a path."""

from contextlib import closing
from pathlib import Path

import pytest

from agent_runtime.api.keys import new_key
from browser import CHROMIUM, PHONE, Browser
from console import find_barriers, open_task, overflows, sign_in
from painting import BLUE, RED, painting_plan, serve_painter
from proxying import run_nginx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: this machine has no Chromium"),
]

SHOWN = "[...document.querySelectorAll('.run img')].map((one) => [one.alt, one.naturalWidth, one.src.slice(0, 5)])"
BEHIND = """
    server {{
        listen 127.0.0.1:{{port}};
        location /tools/runtime/ {{ proxy_pass {upstream}/; proxy_set_header Host $http_host; proxy_buffering off; }}
    }}
"""


def scroll_to(browser: Browser, figure: int) -> None:
    """Bring this figure of the run into view, and wait until its image is loaded."""
    browser.until(f"document.querySelectorAll('.run figure').length > {figure}")
    browser.page.locator(".run figure").nth(figure).scroll_into_view_if_needed()
    browser.until(f"document.querySelectorAll('.run figure')[{figure}].querySelector('button') !== null")


def test_images_are_shown_beside_their_result_and_saved(tmp_path: Path, browser: Browser) -> None:
    asked: list[str] = []
    browser.page.on("request", lambda request: asked.append(request.url))
    with serve_painter(tmp_path) as service:
        task_id = service.complete_task(plan=painting_plan("red", "hostile", "both"))
        open_task(browser, service, task_id)
        browser.until("document.querySelectorAll('.result img').length === 2")
        for figure in range(3):
            scroll_to(browser, figure)
        browser.until(f"({SHOWN}).every(([, width]) => width > 0)")
        assert browser.value_of(SHOWN) == [
            ["Image 1 of 1 from ledger.red", 8, "blob:"],
            ["Image 1 of 2 from ledger.both", 8, "blob:"],
            ["Image 2 of 2 from ledger.both", 64, "blob:"],
        ]
        browser.until_shown(f"PNG, {len(RED)} bytes", "not kept: its content is not image/png", "not valid base64")
        with browser.page.expect_download() as saved:
            browser.page.locator(".run figure").nth(2).get_by_role("button", name="Download").click()
        assert saved.value.path().read_bytes() == BLUE
        assert saved.value.suggested_filename == f"{task_id}-both-1-2.png"
        assert overflows(browser) == "[]"
        assert find_barriers(browser) == []
        assert browser.value_of("window.hacked") is None
        assert [url for url in asked if not url.startswith((service.url, "blob:"))] == []


def test_of_many_images_a_few_are_shown_at_first_and_loaded_only_as_they_come_into_view(tmp_path: Path) -> None:
    loaded: list[str] = []
    with serve_painter(tmp_path) as service, closing(Browser(tmp_path / "browser", size=PHONE)) as browser:
        browser.page.on("request", lambda request: loaded.append(request.url) if "/images/" in request.url else None)
        task_id = service.complete_task(plan=painting_plan("many", "broken"))
        open_task(browser, service, task_id)
        browser.until("document.querySelectorAll('.run figure').length === 7")
        scroll_to(browser, 6)
        browser.until_shown("Show all 50 images", "The browser cannot show this image.")
        browser.page.locator(".run").get_by_role("button", name="Show all 50 images").click()
        browser.until("document.querySelectorAll('.run figure').length === 51")
        assert len(loaded) < 50
        scroll_to(browser, 49)
        browser.until("document.querySelectorAll('.run figure')[49].querySelector('img')?.naturalWidth > 0")
        assert overflows(browser) == "[]"


def test_a_rerun_shows_the_images_of_the_results_that_it_reuses(tmp_path: Path, browser: Browser) -> None:
    read = {
        "id": "read",
        "kind": "tool",
        "server": "filesystem",
        "tool": "read_file",
        "arguments": {"path": "late.txt"},
    }
    plan = painting_plan("red")
    plan["steps"].append(read)
    with serve_painter(tmp_path) as service:
        first = service.submit(plan=plan)
        service.approve(first)
        assert service.wait_for_end(first)["status"] == "failed"
        (tmp_path / "files" / "late.txt").write_text("It is there now.", encoding="utf-8")
        again = service.client.post(f"/v1/tasks/{first}/rerun", json={"from": "failed_step"}).json()["task_id"]
        service.approve(again)
        assert service.wait_for_end(again)["status"] == "completed"
        open_task(browser, service, again)
        browser.until_shown("Nothing is called: the result is that of the earlier task.")
        scroll_to(browser, 0)
        browser.until(f"({SHOWN}).every(([, width]) => width > 0)")
        assert browser.value_of(SHOWN) == [["Image 1 of 1 from ledger.red", 8, "blob:"]]
        browser.until("document.querySelectorAll('.result img').length === 1")
        assert browser.page.get_by_role("link", name="the earlier task").get_attribute("href") == f"#/tasks/{first}"
        assert overflows(browser) == "[]"
        assert find_barriers(browser) == []


def test_an_empty_result_is_named_as_one(tmp_path: Path, browser: Browser) -> None:
    with serve_painter(tmp_path) as service:
        open_task(browser, service, service.complete_task(plan=painting_plan("empty")))
        for place in (".result", ".run"):
            browser.until(f"document.querySelector('{place}')?.innerText.includes('It gave no text.')")


def test_the_page_loads_images_with_its_key_also_under_a_path(tmp_path: Path, browser: Browser) -> None:
    text, key = new_key("ann", ["admin"])
    with serve_painter(tmp_path, auth={"keys": [key.line]}) as service:
        service.client.headers["Authorization"] = f"Bearer {text}"
        task_id = service.complete_task(plan=painting_plan("blue"))
        with run_nginx(tmp_path / "nginx", BEHIND.format(upstream=service.url)) as origin:
            browser.open(f"{origin}/tools/runtime/#/tasks/{task_id}")
            sign_in(browser, text)
            scroll_to(browser, 0)
            browser.until("document.querySelector('.run img')?.naturalWidth === 64")
