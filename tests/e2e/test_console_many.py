"""The inbox of 10,000 tasks, in the real service and a real browser."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from browser import Browser
from console import open_view, rows, until_rows
from serving import Service, sums

COUNT = 10_000
GENEROUS_S = 10.0
"""A list or a search is there within a fraction of a second; on a loaded machine it takes longer."""

# The oldest task waits for a person; one that a person looks for is a week old. The rows have no journals, and nothing
# reads those before a task is opened.
_FILL = """
WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :count)
INSERT INTO tasks (task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata, created_at,
                   updated_at, submitter, head)
SELECT 'task_' || i, 9, 1, iif(i = 1, 'awaiting_approval', iif(i % 50 = 0, 'failed', 'completed')),
       iif(i = 4321, 'Write the report for Łódź', 'Add 15 and ' || i || ', and write the result into count.txt'), 1, 0,
       '{"customer": "acme-' || (i % 7) || '"}', strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000000 + i, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000060 + i, 'unixepoch'), 'anonymous', 'sha256:' || i
FROM numbers
"""


@pytest.mark.slow
@pytest.mark.sqlite
@pytest.mark.timeout(180)
def test_ten_thousand_tasks_are_listed_searched_and_kept_up_to_date(tmp_path: Path, browser: Browser) -> None:
    with Service(tmp_path) as service:
        database = service.settings.storage.database_path
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(_FILL, {"count": COUNT})
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
