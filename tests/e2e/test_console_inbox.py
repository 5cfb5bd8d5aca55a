"""The inbox of the page: live, in pages, with a search and filters, by keyboard, and with an address for every task."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Route

from browser import PHONE, Browser
from console import open_task, open_view, rows, until_rows, until_task
from serving import PATIENCE_S, Service, free_port, sums
from waiting import eventually_sync

pytestmark = pytest.mark.slow

FAILING = {"goal": "fail", "steps": [{**sums(1)["steps"][0], "arguments": {"expression": "1 / 0"}}]}
NOTIFICATIONS = """
window.told = [];
window.Notification = class extends EventTarget {
  static permission = "default";
  static async requestPermission() { told.push("asked"); return Notification.permission = "granted"; }
  constructor(title, { body }) { super(); told.push(body); }
};
Object.defineProperty(document, "hidden", { get: () => window.away === true });
"""


def show(browser: Browser, group: str) -> None:
    """Choose the tasks of a group."""
    browser.page.locator(".chips a", has_text=group).click()


def test_the_inbox_is_live_counts_in_the_title_and_says_when_it_is_disconnected(
    tmp_path: Path, browser: Browser
) -> None:
    with Service(tmp_path, server={"port": free_port()}) as service:
        open_view(browser, service)
        browser.until_shown("No tasks yet.")
        task_id = service.submit(prompt="the first")
        browser.until_shown("Waits for you (1)", "the first")
        browser.until("document.title === '(1) Agent Runtime'")
        service.stop()
        browser.until_shown("Disconnected")
        service.start()
        browser.until("document.getElementById('connection').innerText === ''")
        service.approve(task_id)
        browser.until("document.title === 'Agent Runtime'")


def test_tabs_share_one_connection_and_another_takes_over_when_the_first_is_closed(
    own_service: Service, browser: Browser
) -> None:
    open_view(browser, own_service)
    browser.until_shown("No tasks yet.")
    second = browser.page.context.new_page()
    second.goto(f"{own_service.url}/")
    second.get_by_text("No tasks yet.").wait_for()
    own_service.submit(prompt="seen by both")
    browser.until_shown("Waits for you (1)")
    second.get_by_text("Waits for you (1)").wait_for()
    assert own_service.open_streams == 1
    browser.page.close()
    own_service.submit(prompt="seen by the other")
    second.get_by_text("Waits for you (2)").wait_for()
    eventually_sync(lambda: own_service.open_streams == 1, PATIENCE_S)
    second.close()


def test_what_waits_comes_first_however_old_it_is(own_service: Service, browser: Browser) -> None:
    own_service.submit(prompt="the old one")
    for number in range(55):
        own_service.complete_task(prompt=f"number {number}")
    open_view(browser, own_service)
    browser.until_shown("Waits for you (1)", "Everything else")
    assert rows(browser)[:2] == ["the old one", "number 54"]


def test_older_tasks_come_as_one_scrolls_and_back_returns_to_the_one_before(
    own_service: Service, browser: Browser
) -> None:
    ids = [own_service.complete_task(prompt=f"number {number}") for number in range(60)]
    open_view(browser, own_service)
    browser.until("document.querySelectorAll('.row').length === 50")
    assert rows(browser)[0] == "number 59"
    browser.value_of("document.querySelector('.row:last-child').scrollIntoView()")
    browser.until("document.querySelectorAll('.row').length === 60")
    browser.page.get_by_text("number 0", exact=True).click()
    until_task(browser, ids[0])
    browser.page.get_by_text("number 1", exact=True).click()
    until_task(browser, ids[1])
    browser.page.go_back()
    until_task(browser, ids[0])
    assert browser.value_of("location.hash") == f"#/tasks/{ids[0]}"
    assert len(rows(browser)) == 60


def test_older_tasks_come_even_if_the_list_is_refreshed_while_they_load(own_service: Service, browser: Browser) -> None:
    for number in range(60):
        own_service.complete_task(prompt=f"number {number}")
    waiting = own_service.submit(prompt="changed meanwhile")
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if held:
            route.continue_()
        held.append(route)

    browser.page.route("**/v1/tasks?*cursor=*", hold_the_first)
    open_view(browser, own_service)
    browser.until("document.querySelectorAll('.row').length === 50")
    browser.value_of("[...document.querySelectorAll('.row')].at(-1).scrollIntoView()")
    browser.until("document.querySelector('.buttons button:disabled')")
    own_service.client.post(f"/v1/tasks/{waiting}/reject", json={}).raise_for_status()
    browser.until("document.querySelector('.row').textContent.includes('rejected')")
    held[0].continue_()
    browser.until("document.querySelectorAll('.row').length === 61")


def test_tasks_are_found_by_words_and_by_their_state(own_service: Service, browser: Browser) -> None:
    own_service.complete_task(prompt="Count the words", metadata={"customer": "Acme"})
    own_service.complete_task(prompt="Count the lines")
    failed = own_service.submit(prompt="Divide", plan=FAILING)
    own_service.approve(failed)
    own_service.wait_for_end(failed)
    own_service.submit(prompt="Count and wait")
    open_view(browser, own_service)
    browser.write("Search tasks", "count")
    until_rows(browser, "Count and wait", "Count the lines", "Count the words")
    assert browser.value_of("location.hash") == "#/?q=count"
    show(browser, "Completed")
    until_rows(browser, "Count the lines", "Count the words")
    browser.page.get_by_label("Search tasks").fill("acme")
    until_rows(browser, "Count the words")
    browser.page.reload()
    until_rows(browser, "Count the words")
    browser.page.get_by_label("Search tasks").fill("")
    for group, expected in (("Failed", ["Divide"]), ("Waiting", ["Count and wait"]), ("Stopped", [])):
        show(browser, group)
        until_rows(browser, *expected)
    browser.until_shown("No task is in this group.")
    browser.page.get_by_label("Search tasks").fill("last week")
    browser.until_shown("No task has all of these words in its prompt, labels, thread or id.")
    browser.page.get_by_label("Search tasks").fill("")
    own_service.client.post(f"/v1/tasks/{own_service.submit(prompt='Not this')}/reject", json={})
    until_rows(browser, "Not this")


def test_the_list_is_used_by_keyboard_alone(own_service: Service, browser: Browser) -> None:
    ids = [own_service.submit(prompt=f"number {number}") for number in range(3)]
    open_view(browser, own_service)
    browser.until("document.querySelectorAll('.row').length === 3")
    for key in ("j", "j", "j", "j", "k"):
        browser.page.keyboard.press(key)
    browser.until("document.activeElement.innerText.startsWith('number 1')")
    browser.page.keyboard.press("Enter")
    until_task(browser, ids[1])
    browser.until("document.activeElement.tagName === 'H1'")
    browser.page.keyboard.press("Escape")
    browser.until("location.hash === '#/' && document.activeElement.innerText.startsWith('number 1')")
    browser.page.keyboard.press("/")
    browser.page.keyboard.type("jk?")
    browser.until("document.activeElement.value === 'jk?'")
    browser.page.keyboard.press("Tab")
    browser.page.keyboard.press("?")
    browser.until_shown("The next task of the list")
    browser.page.get_by_label("Shortcuts are on").uncheck()
    browser.press("Close")
    browser.page.keyboard.press("n")
    browser.page.keyboard.press("?")
    browser.until("document.querySelector('dialog') === null && location.hash.startsWith('#/?')")


def test_the_focus_stays_in_a_task_whose_button_is_gone_and_its_top_is_shown(
    own_service: Service, browser: Browser
) -> None:
    open_task(browser, own_service, own_service.submit(plan=sums(20)))
    browser.press("Approve")
    browser.until_shown("Result")
    browser.until("document.activeElement.tagName === 'H1'")
    browser.until("scrollY === 0")


def test_on_a_phone_a_finger_hits_each_button_and_fold(tmp_path: Path, own_service: Service) -> None:
    task_id = own_service.complete_task()
    with closing(Browser(tmp_path / "phone", size=PHONE)) as browser:
        open_task(browser, own_service, task_id)
        browser.until("document.querySelectorAll('.run summary').length > 0")
        assert browser.value_of("matchMedia('(pointer: coarse)').matches")
        folds = "[...document.querySelectorAll('button, summary')].filter((one) => one.offsetHeight > 0)"
        low = f"{folds}.filter((one) => one.offsetHeight < 32).map((one) => one.innerText)"
        assert browser.value_of(f"JSON.stringify({low})") == "[]"


def test_notifications_are_asked_for_by_a_button_and_come_while_one_is_away(
    own_service: Service, browser: Browser
) -> None:
    browser.before_each_page(NOTIFICATIONS)
    own_service.submit(prompt="before")
    open_view(browser, own_service)
    browser.until_shown("Waits for you (1)")
    own_service.submit(prompt="not wanted")
    browser.until_shown("Waits for you (2)")
    assert browser.value_of("told") == []
    browser.press("Notify me")
    browser.until_shown("Stop notifying me")
    browser.value_of("window.away = true")
    own_service.submit(prompt="while\u202e away")
    browser.until("told.length === 2")
    assert browser.value_of("told") == ["asked", r"while\u202e away"]
    browser.press("Stop notifying me")
    own_service.submit(prompt="no more")
    browser.until_shown("Waits for you (4)")
    assert len(browser.value_of("told")) == 2


def test_the_theme_is_chosen_and_remembered(own_service: Service, browser: Browser) -> None:
    open_view(browser, own_service)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = browser.value_of(ground)
    browser.press("Theme: system")
    browser.press("Theme: light")
    browser.until(f"{ground} !== {json.dumps(light)}")
    browser.page.reload()
    browser.until_shown("Theme: dark")
    assert browser.value_of(ground) != light
