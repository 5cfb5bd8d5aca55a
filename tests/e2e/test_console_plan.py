"""The plan in the page: its picture, its sentences, its exact calls, its form, and what changed."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from browser import CHROMIUM, DESKTOP, PHONE, Browser
from console import STATUS, find_barriers, open_task, overflows
from serving import Service
from shifty import SERVER

pytestmark = pytest.mark.slow

ISSUE = {
    "type": "object",
    "required": ["title"],
    "properties": {
        "title": {"type": "string", "description": "The title of the issue."},
        "body": {"type": "string"},
        "labels": {"type": "array", "items": {"type": "string"}},
        "private": {"type": "boolean"},
        "priority": {"type": "integer"},
        "severity": {"enum": ["low", "high"]},
        "assignee": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "extra": {},
    },
}
BIG = 12345678901234567890
EVIL = "<img src=x onerror=window.hacked=1>\u202e\u200b"


def call(name: str, server: str, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "kind": "tool", "server": server, "tool": tool, "arguments": arguments}


READ = call("read", "filesystem", "read_file", path="notes.txt")
SAVE = call("save", "filesystem", "write_file", path="copy.txt", content="Copy: ${read.text}")
FILE = call(
    "file",
    "github",
    "create_issue",
    title="Notes",
    body="${read.text}",
    labels=["bug"],
    private=True,
    priority=BIG,
    assignee={"name": "Ada"},
    extra={"a": [1, None]},
)


def plan_of(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"goal": "g", "steps": list(steps)}


@contextmanager
def serve(folder: Path) -> Iterator[Service]:
    """Run a service with a server `github` that is not trusted and says that its tool only reads."""
    tool = {"name": "create_issue", "inputSchema": ISSUE, "annotations": {"readOnlyHint": True}}
    (folder / "tools.json").write_text(json.dumps([tool]), encoding="utf-8")
    service = Service(folder)
    registry = yaml.safe_load(service.settings.tool_registry.read_text())
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVER)], "env": {"HOUSE": str(folder)}}
    registry["tool_registry"].append({"id": "github", "type": "local_stdio", "config": config})
    service.settings.tool_registry.write_text(yaml.safe_dump(registry), encoding="utf-8")
    (folder / "files" / "notes.txt").write_text("one\ntwo\n", encoding="utf-8")
    with service:
        yield service


def press_in(browser: Browser, name: str) -> None:
    """Press a button by its accessible name, by keyboard."""
    browser.page.get_by_role("button", name=name, exact=True).first.press("Enter")


def exact_values(browser: Browser) -> dict[str, str]:
    """Return the arguments of the exact call that is unfolded, as they are shown."""
    names = browser.page.locator(".step .values").first.locator("> dt").all_inner_texts()
    values = browser.page.locator(".step .values").first.locator("> dd").all_inner_texts()
    return dict(zip(names, (value.strip() for value in values), strict=True))


def test_a_plan_is_read_as_sentences_and_its_exact_call_as_text(tmp_path: Path, browser: Browser) -> None:
    with serve(tmp_path) as service:
        open_task(browser, service, service.submit(plan=plan_of(READ, SAVE, FILE)))
        browser.until_shown("Reads notes.txt (2 lines, 8 bytes).", "writes a new file")
        browser.until_shown('Creates copy.txt with "Copy: " followed by the result of step 1.')
        browser.until_shown("effect unknown; the server says it only reads", "takes content from step 1")
        (tmp_path / "files" / "copy.txt").write_text("x" * 876, encoding="utf-8")
        press_in(browser, "Look again")
        browser.until_shown("Replaces copy.txt, which exists (876 bytes), with", "replaces a file")
        press_in(browser, "Exact call of step 3")
        shown = exact_values(browser)
        assert (shown["title"], shown["body"], shown["private"]) == ("Notes", "result of step 1", "yes")
        assert shown["priority"] == str(BIG)
        assert "${" not in browser.page.locator(".step .values").first.inner_text()
        browser.page.locator(".step .raw summary").first.click()
        raw = browser.page.locator(".step .raw pre").inner_text()
        assert '"body": "${read.text}"' in raw
        assert str(BIG) in raw


def test_the_picture_has_every_step_and_leads_to_it_in_the_list(tmp_path: Path, browser: Browser) -> None:
    last = call("last", "filesystem", "append_file", path="log.txt", content="done") | {"depends_on": ["save"]}
    check = FILE | {"when": "${read.text} != ''"}
    with serve(tmp_path) as service:
        open_task(browser, service, service.submit(plan=plan_of(READ, SAVE, check, last)))
        browser.until("document.querySelectorAll('.picture .node').length === 4")
        kinds = "['data', 'condition', 'order'].map((kind) => document.querySelectorAll(`.flow.${kind}`).length)"
        assert browser.value_of(f"JSON.stringify({kinds})") == "[2,0,1]"
        assert browser.value_of("document.querySelector('.picture svg').getAttribute('aria-hidden')") == "true"
        browser.page.locator(".picture .node").nth(3).click()
        assert browser.value_of("document.activeElement.id") == "step-last"
        browser.until_shown("waits for step 2", 'but only if the result of step 1 is not ""')


def test_an_argument_is_edited_by_a_form_and_references_are_kept(tmp_path: Path, browser: Browser) -> None:
    with serve(tmp_path) as service:
        task_id = service.submit(plan=plan_of(READ, FILE))
        before = service.task(task_id)
        open_task(browser, service, task_id)
        press_in(browser, "Edit step 2")
        form = browser.page.get_by_role("form", name="Edit step 2")
        assert form.get_by_label("body optional").input_value() == "${read.text}"
        form.get_by_label("title", exact=True).fill("Other notes")
        form.get_by_label("severity optional").select_option("high")
        form.get_by_label("private optional").select_option("no")
        form.get_by_role("button", name="Add an item").click()
        form.get_by_label("Item 2", exact=True).fill("new")
        form.get_by_label("name", exact=True).fill("Grace")
        form.get_by_label("extra (JSON) optional").fill('{"a": [1, null], "b": 123456789012345678901}')
        form.get_by_role("button", name="Save as revision 2").press("Enter")
        browser.until_shown("Revision 2", "What changed since revision 1", "Changed step 2")
        task = service.task(task_id)
        arguments = task["plan_object"]["steps"][1]["arguments"]
        assert arguments == FILE["arguments"] | {
            "title": "Other notes",
            "severity": "high",
            "private": False,
            "labels": ["bug", "new"],
            "assignee": {"name": "Grace"},
            "extra": {"a": [1, None], "b": 123456789012345678901},
        }
        assert task["plan_object"]["steps"][0] == before["plan_object"]["steps"][0]
        changes = browser.page.locator(".changes").inner_text()
        assert "Other notes" in changes
        browser.press("Approve")
        browser.until(f"{STATUS} === 'needs attention'")
        assert service.task(task_id)["approvals"][-1]["digest"] == task["plan_digest"]


def test_an_edit_that_the_service_refuses_changes_nothing_and_says_why(tmp_path: Path, browser: Browser) -> None:
    with serve(tmp_path) as service:
        task_id = service.submit(plan=plan_of(READ, SAVE))
        digest = service.task(task_id)["plan_digest"]
        open_task(browser, service, task_id)
        press_in(browser, "Edit step 1")
        press_in(browser, "Remove step 1")
        browser.until("document.querySelector('.editor .problem')?.innerText.includes('read')")
        assert service.task(task_id)["plan_digest"] == digest
        press_in(browser, "Discard")
        browser.until("document.querySelector('.editor') === null")
        press_in(browser, "Edit step 2")
        press_in(browser, "Remove step 2")
        browser.until_shown("Revision 2", "Removed step save")
        assert [step["id"] for step in service.task(task_id)["steps"]] == ["read"]


def test_a_plan_that_was_changed_elsewhere_meanwhile_is_not_overwritten(tmp_path: Path, browser: Browser) -> None:
    with serve(tmp_path) as service:
        task_id = service.submit(plan=plan_of(READ))
        open_task(browser, service, task_id)
        press_in(browser, "Edit step 1")
        browser.page.get_by_label("path", exact=True).fill("mine.txt")
        browser.page.route(f"**/v1/tasks/{task_id}", lambda route: route.abort())  # the page hears of nothing
        other = plan_of(call("read", "filesystem", "read_file", path="theirs.txt"))
        headers = {"If-Match": f'"{service.task(task_id)["plan_digest"]}"'}
        assert service.client.put(f"/v1/tasks/{task_id}/plan", json=other, headers=headers).is_success
        press_in(browser, "Save as revision 2")
        browser.until("document.querySelector('.editor .problem') !== null")
        assert service.task(task_id)["plan_object"]["steps"][0]["arguments"] == {"path": "theirs.txt"}


@pytest.fixture(params=[(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def sized_browser(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A browser of the size of a desktop in light colours, or of a phone in dark ones."""
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: the page needs Chromium, and this machine has none")
    size, scheme = request.param
    browser = Browser(tmp_path / "browser", size=size, scheme=scheme)
    try:
        yield browser
        assert not browser.mistakes
    finally:
        browser.close()


@pytest.mark.timeout(240)  # axe looks at every element of sixty steps
def test_hostile_plans_are_shown_as_text_without_barriers_or_overflow(tmp_path: Path, sized_browser: Browser) -> None:
    nested: Any = EVIL
    for _ in range(8):
        nested = {f"{EVIL} key": [nested]}
    evil = FILE | {"title": EVIL, "reasoning": EVIL, "id": "constructor"}
    evil["arguments"] = {"title": EVIL * 3, "body": f"{EVIL}\n" * 4000, "__proto__": EVIL, EVIL: nested, "n" * 500: 1}
    many = [
        call(f"s{at}", "filesystem", "write_file", path=f"{EVIL}{at}", content=f"${{s{at // 3}.text}}" if at else "x")
        for at in range(58)
    ]
    with serve(tmp_path) as service:
        plan = plan_of(*many, evil, READ | {"depends_on": ["constructor"]}) | {"goal": EVIL}
        task_id = service.submit(prompt=EVIL, plan=plan, max_steps=60)
        open_task(sized_browser, service, task_id)
        sized_browser.until("document.querySelectorAll('.picture .node').length === 60")
        press_in(sized_browser, "Exact call of step 59")
        sized_browser.until("document.querySelector('.fold') !== null")
        assert sized_browser.value_of("document.querySelector('.value-text').innerText.length") < 1000, "it is folded"
        folded = sized_browser.page.get_by_role("button", name="characters")
        folded.first.click()
        sized_browser.until("document.querySelectorAll('.value-text')[1].innerText.length > 100000")
        shown = sized_browser.value_of("document.querySelector('.plan').innerText")
        assert r"<img src=x onerror=window.hacked=1>\u202e\u200b" in shown
        assert "\u202e" not in shown
        assert sized_browser.value_of("window.hacked") is None
        assert sized_browser.value_of("document.querySelectorAll('main img').length") == 0
        assert overflows(sized_browser) == "[]"
        press_in(sized_browser, "Edit step 59")
        sized_browser.until("document.querySelector('.editor textarea') !== null")
        assert overflows(sized_browser) == "[]"
        assert find_barriers(sized_browser) == []
