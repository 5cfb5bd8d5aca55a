"""The servers and their tools on the page: their state, what they wrote, and a tool that is tried by a form."""

import sys
from pathlib import Path

import pytest
import yaml

from agent_runtime.api.keys import new_key
from browser import Browser
from console import STATUS, find_barriers, open_view, sign_in
from serving import BUILTINS, Service

pytestmark = pytest.mark.slow

FAILING = "import sys; sys.exit('<b>cannot</b> find the \u202edatabase')"
BROKEN = {"id": "broken", "type": "local_stdio", "config": {"command": sys.executable, "args": ["-c", FAILING]}}


def write(service: Service, *entries: object) -> None:
    service.settings.tool_registry.write_text(
        yaml.safe_dump({"tool_registry": [*BUILTINS, *entries]}), encoding="utf-8"
    )


def test_a_server_that_does_not_start_is_shown_with_what_it_wrote_as_text(
    own_service: Service, browser: Browser
) -> None:
    write(own_service, BROKEN)
    open_view(browser, own_service, "servers")
    browser.press("Read the registry again")
    browser.until_shown("added: broken")
    browser.page.get_by_role("link", name="broken").click()
    browser.press("Ask it again")
    browser.until_shown("not available", "its process exited with code 1")
    browser.until("document.querySelector('details[open] pre')?.innerText.startsWith('<b>cannot</b> find the')")
    assert "\u202e" not in browser.value_of("document.body.innerText")
    assert find_barriers(browser) == []
    browser.page.go_back()
    browser.until_shown("Read the registry again")


def test_a_tool_is_tried_by_a_form_with_the_text_exactly_as_it_was_typed(
    own_service: Service, browser: Browser
) -> None:
    open_view(browser, own_service, "servers/filesystem")
    browser.page.get_by_role("link", name="write_file", exact=True).click()
    browser.until_shown("Nothing runs before it is approved.")
    assert find_barriers(browser) == []
    browser.write("path", "note.txt")
    browser.write("content", "price: ${s1.text} and $${")
    browser.press("Plan this call")
    browser.until_shown("Creates note.txt")
    browser.press("Approve")
    browser.until(f"{STATUS} === 'completed'")
    written: Path = own_service.settings.data_dir.parent / "files" / "note.txt"
    assert written.read_text(encoding="utf-8") == "price: ${s1.text} and $${"


def test_an_argument_that_is_missing_is_named_and_nothing_is_submitted(own_service: Service, browser: Browser) -> None:
    open_view(browser, own_service, "servers/calculator/evaluate")
    browser.until_shown("Nothing runs before it is approved.")
    browser.press("Plan this call")
    browser.until("document.querySelector('.problem')?.innerText.includes('expression')")
    assert own_service.get("/v1/tasks")["tasks"] == []


def test_a_reader_sees_the_servers_but_may_not_start_reload_or_call_them(tmp_path: Path, browser: Browser) -> None:
    text, key = new_key("reader", ["read"])
    with Service(tmp_path, auth={"keys": [key.line]}) as service:
        open_view(browser, service, "servers/calculator")
        sign_in(browser, text)
        browser.until_shown("evaluate", "This needs the scope 'submit'")
        assert browser.page.get_by_role("button", name="Ask it again").is_disabled()
        open_view(browser, service, "servers/calculator/evaluate")
        browser.until_shown("This needs the scope 'submit'")
        assert browser.page.get_by_role("button", name="Plan this call").is_disabled()
