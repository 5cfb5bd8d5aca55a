"""The run of a task on the page: what tools and models gave, shown safely, and what to do when it failed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, DESKTOP, PHONE, Browser
from console import STATUS, find_barriers, open_task, overflows
from harness import House
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn
from serving import Service

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: this machine has no Chromium"),
]

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SVG = "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciPjxzY3JpcHQ+d2luZG93LmhhY2tlZD0xPC9zY3JpcHQ+PC9zdmc+"
EVIL = f"""# A <b>title</b> \u202ereversed

<script>window.hacked=1</script> <img src=x onerror=window.hacked=1>

some **bold** words

[go](javascript:window.hacked=1) [data](data:text/html,<script>1</script>) [web](https://elsewhere.example/path)

![far](https://elsewhere.example/a.png) ![drawn](data:image/svg+xml;base64,{SVG}) ![near](data:image/png;base64,{PNG})

| a | b |
|---|---|
| <i>1</i> | `2` |
"""
FILES = {
    "evil.md": EVIL,
    "slow.md": "*a **b" * 8000,
    "deep.md": ">" * 20_000,
    "big.txt": "0123456789abcde\n" * 65_536,
    "picture.txt": f"data:image/png;base64,{PNG}",
    "drawing.txt": f"data:image/svg+xml;base64,{SVG}",
    "wide.txt": "x" * 5000,
}


@contextmanager
def serve(house: House, **settings: Any) -> Iterator[Service]:
    """Run a service with the registry of the house."""
    written = house.settings.tool_registry.read_text(encoding="utf-8")
    service = Service(house.folder, **settings)
    house.settings.tool_registry.write_text(written, encoding="utf-8")
    with service:
        yield service


@pytest.fixture(
    params=[
        pytest.param((DESKTOP, "dark"), id="desktop"),
        pytest.param((PHONE, "light"), id="phone", marks=pytest.mark.slow),
    ]
)
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    size, scheme = request.param
    with closing(Browser(tmp_path / "browser", size=size, scheme=scheme)) as browser:
        yield browser
        assert browser.mistakes == [], "no exception, and no violation of the security policy"
        assert browser.value_of("window.hacked") is None


def read_files() -> dict[str, Any]:
    """Return a plan that reads each of the hostile files."""
    read = {"kind": "tool", "server": "filesystem", "tool": "read_file", "title": "<img src=x onerror=hacked=1>\u202e"}
    steps = [read | {"id": f"s{at}", "arguments": {"path": name}} for at, name in enumerate(FILES)]
    return {"goal": "read", "steps": steps}


@pytest.mark.slow
def test_hostile_results_are_shown_without_running_or_loading_anything(tmp_path: Path, browser: Browser) -> None:
    house = House(tmp_path)
    for name, text in FILES.items():
        (house.files / name).write_text(text, encoding="utf-8")
    asked: list[str] = []
    browser.page.on("request", lambda request: asked.append(request.url))
    with serve(house) as service:
        task_id = service.submit(plan=read_files())
        service.approve(task_id)
        assert service.wait_for_end(task_id)["status"] == "completed"
        open_task(browser, service, task_id)
        browser.until("document.querySelector('.run .markdown table') !== null")
        browser.until_shown(
            r"A <b>title</b> \u202ereversed", "<script>window.hacked=1</script>", "[picture “drawn”, not shown]"
        )
        assert browser.value_of("document.querySelectorAll('.run .markdown strong').length") == 1
        shown = browser.value_of("[...document.querySelectorAll('.run img')].map((one) => one.src.slice(0, 15))")
        assert shown == ["data:image/png;"] * 2
        assert browser.value_of("document.querySelectorAll('.run :is(script, iframe, b, i, svg script)').length") == 0
        assert browser.value_of("document.querySelectorAll('.run a').length") == 0
        links = browser.value_of("[...document.querySelectorAll('.run button.link')].map((one) => one.innerText)")
        assert links == ["web", "picture “far”"], "no link runs code"
        browser.page.locator(".run").get_by_role("button", name="web", exact=True).click()
        assert browser.value_of("document.querySelector('.run a').href") == "https://elsewhere.example/path"
        assert browser.value_of("document.querySelector('.run .folded').innerText.length") < 10_000
        assert overflows(browser) == "[]"
        assert find_barriers(browser) == []
        assert [url for url in asked if not url.startswith((service.url, "data:", "blob:"))] == []


@pytest.mark.slow
def test_a_long_result_is_unfolded_copied_whole_and_saved_whole(tmp_path: Path, browser: Browser) -> None:
    house = House(tmp_path)
    (house.files / "long.txt").write_text("a line\n" * 3000, encoding="utf-8")
    step = {"id": "s1", "kind": "tool", "server": "filesystem", "tool": "read_file", "arguments": {"path": "long.txt"}}
    with serve(house) as service:
        task_id = service.submit(plan={"goal": "read", "steps": [step]})
        service.approve(task_id)
        service.wait_for_end(task_id)
        open_task(browser, service, task_id)
        run = browser.page.locator(".run")
        run.get_by_role("button", name="Show all 21,000 characters").click()
        browser.until("document.querySelector('.run .unfolded').innerText.split('a line').length === 3001")
        with browser.page.expect_download() as saved:
            run.get_by_role("button", name="Download").click()
        assert saved.value.path().read_text(encoding="utf-8") == "a line\n" * 3000
        run.get_by_role("button", name="Copy").click()
        browser.until_shown("Copied")


@pytest.mark.slow
def test_a_failure_says_why_and_its_step_is_edited_and_tried_again(tmp_path: Path, browser: Browser) -> None:
    house = House(tmp_path)
    (house.files / "there.txt").write_text("found", encoding="utf-8")
    add = {"id": "s1", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 1, "b": 2}}
    read = {"id": "s2", "kind": "tool", "server": "filesystem", "tool": "read_file", "depends_on": ["s1"]}
    steps = [add, read | {"arguments": {"path": "missing.txt"}}]
    with serve(house) as service:
        failed = service.submit(prompt="Read it", plan={"goal": "read", "steps": steps})
        service.approve(failed)
        service.wait_for_end(failed)
        open_task(browser, service, failed)
        browser.until_shown(
            "Step 2 failed: filesystem.read_file.", "There is no file missing.txt", "If the cause is gone"
        )
        browser.press("Edit and try again")
        browser.write("path", "")
        browser.page.get_by_label("path", exact=True).fill("there.txt")
        browser.press("Save as revision 2")
        browser.until_shown("Revision 2")
        browser.press("Approve")
        browser.until(f"{STATUS} === 'completed'")
        open_task(browser, service, failed)
        browser.page.get_by_role("link", name="Duplicate").click()
        browser.until_shown("Use its plan (2 steps)")
        browser.until("document.querySelector('textarea').value === 'Read it'")
        browser.press("Plan it")
        browser.until_shown("Should this plan run?")


@pytest.mark.slow
def test_each_turn_of_a_model_is_shown_with_what_it_was_asked(tmp_path: Path, browser: Browser) -> None:
    house = House(tmp_path)
    house.write_registry(tools={"*": {"open_world": False}})
    tools = [{"server": "ledger", "tool": "count", "max_calls": 2}]
    step = {"id": "s1", "kind": "agent", "instruction": "Count <b>it</b>", "tools": tools, "preapproved": True}
    with ModelServer() as models:
        models.on(
            "Count", by_turn(Calls([("ledger__count", {"label": "one"})]), Text("# Done\n\n* one", usage=(70, 30)))
        )
        with serve(house, openai={"base_url": models.base_url, "model": "test-model"}) as service:
            task_id = service.submit(plan={"goal": "count", "steps": [step]})
            service.approve(task_id)
            service.wait_for_end(task_id)
            open_task(browser, service, task_id)
            browser.until_shown("The model asks for ledger__count", "ledger.count", "70 tokens in, 30 out")
            browser.until("document.querySelector('.run .markdown li').innerText === 'one'")
            for fold in browser.page.locator(".run .conversation summary").all():
                fold.click()
            browser.until_shown(
                "You carry out one step of a plan", "Count <b>it</b>", "Result of a call", "counted one"
            )


@pytest.mark.slow
def test_the_arguments_of_a_call_are_edited_in_place_and_the_call_is_sent_with_them(
    tmp_path: Path, browser: Browser
) -> None:
    house = House(tmp_path)
    house.write_registry(tools={"look": {"effect": "read", "idempotent": True}})
    look = {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "x"}}
    arguments = {"path": "said.txt", "content": "It said: ${look.text}"}
    save = {"id": "save", "kind": "tool", "server": "filesystem", "tool": "write_file", "arguments": arguments}
    with serve(house) as service:
        task_id = service.submit(plan={"goal": "keep", "steps": [look, save]})
        service.approve(task_id)
        open_task(browser, service, task_id)
        browser.press("Edit the arguments")
        browser.until_shown("Nothing is changed yet.")
        browser.page.get_by_label("path", exact=True).fill("other.txt")
        browser.until_shown("Changed: path.")
        assert find_barriers(browser) == []
        browser.press("Approve with these arguments")
        browser.until(f"{STATUS} === 'completed'")
        browser.until_shown("Approved with edited arguments.")
        assert service.task(task_id)["approvals"][-1]["edited_digest"] is not None
    assert (house.files / "other.txt").read_text(encoding="utf-8") == "It said: counted x"
    assert not (house.files / "said.txt").exists()
