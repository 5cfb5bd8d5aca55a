"""The inbox of 10,000 tasks, in the real service and a real browser."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Route

from browser import Browser
from console import open_view, rows, until_rows
from serving import Service, sums

COUNT = 10_000
GENEROUS_S = 10.0
"""A list or a search is there within a fraction of a second; on a loaded machine it takes longer."""

# The oldest task waits for a person; one that a person looks for is a week old. The rows have no journals, and nothing
# reads those before a task is opened.
_FILL = """
WITH RECURSIVE numbers (i) AS (SELECT :first UNION ALL SELECT i + 1 FROM numbers WHERE i < :last)
INSERT INTO tasks (task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata, created_at,
                   updated_at, submitter, head)
SELECT 'task_' || i, 9, 1, iif(i = 1, 'awaiting_approval', iif(i % 50 = 0, 'failed', 'completed')),
       iif(i = 4321, 'Write the report for Łódź', 'Add 15 and ' || i || ', and write the result into count.txt'), 1, 0,
       '{"customer": "acme-' || (i % 7) || '"}', strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000000 + i, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000060 + i, 'unixepoch'), 'anonymous', 'sha256:' || i
FROM numbers
"""


PRESS_MORE = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'More').click()"


def fill_list(service: Service, first: int, last: int) -> None:
    """Add tasks without journals to those of a service that does not run."""
    with closing(sqlite3.connect(service.settings.storage.database_path)) as connection, connection:
        connection.execute(_FILL, {"first": first, "last": last})


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.timeout(180)
def test_ten_thousand_tasks_are_listed_searched_and_kept_up_to_date(tmp_path: Path, browser: Browser) -> None:
    with Service(tmp_path) as service:
        pass
    fill_list(service, 1, COUNT)
    with Service(tmp_path) as service:
        began = time.monotonic()
        open_view(browser, service)
        browser.until_shown("Waits for you (1)")
        assert rows(browser)[:2] == [
            "Add 15 and 1, and write the result into count.txt",
            f"Add 15 and {COUNT}, and write the result into count.txt",
        ]
        browser.write("Search tasks", "łódź REPORT")
        until_rows(browser, "Write the report for Łódź")
        assert time.monotonic() - began < 2 * GENEROUS_S
        browser.page.get_by_label("Search tasks").fill("")
        browser.until("document.querySelectorAll('.row').length > 1")
        for count in (200, 1000):
            while browser.value_of("document.querySelectorAll('.row').length") < count:
                browser.value_of("document.querySelector('.row:last-child').scrollIntoView()")
                browser.value_of("document.querySelector('.inbox').lastElementChild.scrollIntoView()")
        began = time.monotonic()
        service.submit(prompt="the newest", plan=sums(1))
        browser.until_shown("Waits for you (2)")
        browser.until("document.querySelector('.row .prompt').textContent === 'the newest'")
        assert time.monotonic() - began < GENEROUS_S
        assert len(set(rows(browser))) == len(rows(browser)) > COUNT // 10


def open_two_pages(browser: Browser, service: Service) -> None:
    """Open the list, and load its second page once the feed has begun, with which the list is loaded anew."""
    open_view(browser, service)
    browser.until("document.querySelectorAll('.row').length >= 50")
    service.submit(prompt="the feed has begun", plan=sums(1))
    browser.until_shown("the feed has begun")
    browser.value_of(PRESS_MORE)
    browser.until("document.querySelectorAll('.row').length >= 100")


def hold(held: list[Route]) -> Callable[[Route], None]:
    """Return a handler of requests that keeps them back, in a list."""
    return lambda route: held.append(route)  # noqa: PLW0108 - the browser's library takes no method of a list


@pytest.mark.slow
@pytest.mark.sqlite
def test_older_tasks_that_come_while_a_task_is_loaded_again_stay_in_the_list(tmp_path: Path, browser: Browser) -> None:
    with Service(tmp_path) as service:
        pass
    fill_list(service, 1, 60)
    with Service(tmp_path) as service:
        changed = service.submit(prompt="changed meanwhile", plan=sums(1))
    fill_list(service, 61, 150)
    with Service(tmp_path) as service:
        open_two_pages(browser, service)
        pages: list[Route] = []
        tasks: list[Route] = []
        browser.page.route("**/v1/tasks?*cursor=*", hold(pages))
        browser.page.route(f"**/v1/tasks/{changed}", hold(tasks))
        with browser.page.expect_request("**/v1/tasks?*cursor=*"):
            browser.value_of(PRESS_MORE)
        with browser.page.expect_request(f"**/v1/tasks/{changed}"):
            service.client.post(f"/v1/tasks/{changed}/reject", json={}).raise_for_status()
        pages[0].continue_()
        browser.until("document.querySelectorAll('.row').length > 150")
        tasks[0].continue_()
        browser.until("[...document.querySelectorAll('.row')].some((row) => row.textContent.includes('rejected'))")
        assert len(rows(browser)) > 150


@pytest.mark.slow
@pytest.mark.sqlite
def test_no_task_is_missing_from_the_list_after_more_than_a_page_of_new_ones(tmp_path: Path, browser: Browser) -> None:
    with Service(tmp_path) as service:
        pass
    fill_list(service, 1, 100)
    with Service(tmp_path) as service:
        open_two_pages(browser, service)
        held: list[Route] = []
        browser.page.route("**/v1/tasks?limit=50", hold(held))
        with browser.page.expect_request("**/v1/tasks?limit=50"):
            service.complete_task(prompt="new 0", plan=sums(1))
        browser.until("true")  # the request is in the list
        for number in range(1, 60):
            service.complete_task(prompt=f"new {number}", plan=sums(1))
        assert held
        browser.page.unroute("**/v1/tasks?limit=50")  # which lets those go on that were kept back
        browser.until("document.querySelector('.inbox').textContent.includes('new 59')")
        browser.value_of(PRESS_MORE)
        browser.until("document.querySelector('.inbox').textContent.includes('Add 15 and 99,')")
        shown = rows(browser)
        assert [f"new {number}" for number in range(60) if f"new {number}" not in shown] == []
