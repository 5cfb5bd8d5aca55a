"""Each journey on the page as people take it: on a desk and on a phone, light and dark, with keys and without.

The everyday suite takes one journey in two of these ways. Marked slow are all others, and axe, which judges each view.
"""

import itertools
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from agent_runtime.api.keys import new_key
from browser import CHROMIUM, DESKTOP, PHONE, Browser
from console import STATUS, find_barriers, open_task, open_view, overflows, sign_in, until_task
from harness import House
from serving import Service, free_port, sums
from shifty import ShiftyHouse, plan_of

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: this machine has no Chromium"),
]

EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\u202e\u2066\x1b[31m{{7*7}}'\"`&amp;"
SHOWN = EVIL.replace("\u202e", r"\u202e").replace("\u2066", r"\u2066").replace("\x1b", r"\x1b")
SERVERS = Path(__file__).parents[1] / "servers"
LONG = "Averylongwordwithoutanyspace" * 12


@dataclass
class Place:
    """A browser of some size and scheme, a folder for a service, and a key if the service shall require one."""

    browser: Browser
    folder: Path
    key: str
    line: str
    with_axe: bool = True

    @contextmanager
    def serve(self) -> Iterator[Service]:
        """Run a service on the folder, and let tests call it with the key."""
        registry = self.folder / "tool_registry.yaml"
        written = registry.read_text(encoding="utf-8") if registry.exists() else None
        settings: dict[str, Any] = {"auth": {"keys": [self.line]}} if self.key else {}
        service = Service(self.folder, server={"port": free_port()}, **settings)
        if written:
            registry.write_text(written, encoding="utf-8")
        if self.key:
            service.client.headers["Authorization"] = f"Bearer {self.key}"
        with service:
            open_view(self.browser, service)
            if self.key:
                sign_in(self.browser, self.key)
            self.browser.until("document.querySelector('.inbox') !== null")
            yield service

    def judge(self) -> None:
        """Check that axe finds nothing in what is shown, and that nothing is cut off sideways."""
        assert not self.with_axe or find_barriers(self.browser) == []
        assert overflows(self.browser) == "[]"
        assert self.browser.value_of("window.hacked") is None


Setting = tuple[tuple[int, int], Literal["light", "dark"], bool, bool]
EVERYDAY: list[Setting] = [(DESKTOP, "dark", False, False), (PHONE, "light", True, False)]
ALL: list[Setting] = list(itertools.product([DESKTOP, PHONE], ["light", "dark"], [False, True], [True]))


def name_of(setting: Setting) -> str:
    """Return a name such as `1440 dark with keys, axe`."""
    (width, _), scheme, with_key, with_axe = setting
    return f"{width} {scheme} {'with' if with_key else 'without'} keys{', axe' if with_axe else ''}"


@pytest.fixture(
    params=[
        *(pytest.param(setting, id=name_of(setting)) for setting in EVERYDAY),
        *(pytest.param(setting, id=name_of(setting), marks=pytest.mark.slow) for setting in ALL),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    size, scheme, with_key, with_axe = request.param
    text, key = new_key("ann", ["submit", "read", "approve"])
    with closing(Browser(tmp_path / "browser", size=size, scheme=scheme)) as browser:
        yield Place(browser, tmp_path, text if with_key else "", key.line, with_axe)
        assert browser.mistakes == []


def test_a_person_submits_revises_approves_and_reads_the_result(place: Place) -> None:
    browser = place.browser
    with place.serve() as service:
        browser.page.get_by_role("link", name="New task").click()
        browser.write("What should be done?", "write 'hello' to a.txt")
        place.judge()
        browser.press("Plan it")
        browser.until_shown("Should this plan run?")
        place.judge()
        browser.write("Changes to the plan, or a reason to reject it", "read the file a.txt")
        browser.press("Revise")
        browser.until_shown("Revision 2", "What changed since revision 1")
        browser.press("Approve")
        browser.until(f"{STATUS} === 'completed'")
        place.judge()
        assert service.get("/v1/tasks")["tasks"][0]["status"] == "completed"


@pytest.mark.slow
def test_what_is_hostile_in_any_field_is_only_text(place: Place) -> None:
    House(place.folder).write_registry(tools={"look": {"effect": "read", "idempotent": True}})
    look: dict[str, Any] = {
        "id": "look",
        "kind": "tool",
        "server": "ledger",
        "tool": "look",
        "title": EVIL,
        "reasoning": EVIL,
    }
    save: dict[str, Any] = {
        "id": "save",
        "kind": "tool",
        "server": "filesystem",
        "tool": "write_file",
        "depends_on": ["look"],
    }
    look["arguments"] = {"label": EVIL + LONG}
    save["arguments"] = {"path": "said.txt", "content": "${look.text}"}
    browser = place.browser
    with place.serve() as service:
        metadata = {EVIL[:64]: EVIL}
        plan = {"goal": EVIL, "steps": [look, save]}
        task_id = service.submit(prompt=f"{EVIL} {LONG}", plan=plan, metadata=metadata)
        open_view(browser, service)
        browser.until_shown("Waits for you (1)", SHOWN)
        place.judge()
        browser.page.locator(".row a").click()
        until_task(browser, task_id)
        place.judge()
        browser.press("Approve")
        browser.until_shown("May step save make this call?")
        place.judge()
        browser.page.get_by_label("Comment (optional)").fill(EVIL)
        browser.press("Approve")
        browser.until(f"{STATUS} === 'completed'")
        browser.until_shown("Result", f"approve (step save): {SHOWN}")
        place.judge()
        open_view(browser, service, f"?q={EVIL[:10]}")
        browser.until("document.querySelectorAll('.row').length === 1")
        assert browser.value_of("document.querySelectorAll('img, iframe, object, main script').length") == 0


@pytest.mark.slow
def test_a_person_answers_an_unknown_outcome_after_a_restart_of_the_service(place: Place) -> None:
    house = ShiftyHouse(place.folder)
    house.write_entry(tools={"die": {"idempotent": False}, "*": {"open_world": False}})
    browser = place.browser
    with place.serve() as service:
        task_id = service.submit(plan=plan_of("die:one").model_dump(mode="json"))
        open_task(browser, service, task_id)
        browser.press("Approve")
        browser.until_shown("Did this call of step s1 take effect?", "Nobody knows: ")
        place.judge()
        service.restart()
        browser.until("document.getElementById('connection').innerText === ''")
        browser.write("The output of the call, as JSON or text (optional)", '{"said": "told"}')
        browser.press("Done")
        browser.until(f"{STATUS} === 'completed'")
        assert service.task(task_id)["approvals"][-1]["decision"] == "done"


@pytest.mark.slow
def test_a_person_answers_the_question_of_a_server(place: Place) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    House(place.folder).write_registry(config=config, tools={"*": {"effect": "read"}})
    browser = place.browser
    with place.serve() as service:
        step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "form"}
        task_id = service.submit(plan={"goal": "ask", "steps": [step]})
        service.approve(task_id)
        open_task(browser, service, task_id)
        browser.until_shown("The server ledger asks you", "Dismiss")
        place.judge()
        browser.press("Answer")
        browser.until_shown("content.name")
        place.judge()
        browser.write("name", LONG)
        browser.press("Answer")
        browser.until(f"{STATUS} === 'completed'")
        place.judge()
        assert service.task(task_id)["approvals"][-1]["decision"] == "accept"


@pytest.mark.slow
def test_a_person_edits_the_arguments_of_a_call(place: Place) -> None:
    House(place.folder).write_registry(tools={"look": {"effect": "read", "idempotent": True}})
    look = {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": "one"}}
    arguments = {"path": "said.txt", "content": "${look.text}"}
    save = {"id": "save", "kind": "tool", "server": "filesystem", "tool": "write_file", "arguments": arguments}
    browser = place.browser
    with place.serve() as service:
        task_id = service.submit(plan={"goal": "save", "steps": [look, save]})
        service.approve(task_id)
        open_task(browser, service, task_id)
        browser.until_shown("May step save make this call?")
        browser.press("Edit the arguments")
        browser.until_shown("Nothing is changed yet.")
        place.judge()
        browser.page.get_by_label("content", exact=True).fill(LONG)
        browser.until_shown("Changed: content.")
        place.judge()
        browser.press("Approve with these arguments")
        browser.until(f"{STATUS} === 'completed'")
        place.judge()
        assert service.task(task_id)["approvals"][-1]["edited_digest"] is not None


@pytest.mark.slow
def test_every_view_is_without_barriers_and_fits_the_screen(place: Place) -> None:
    browser = place.browser
    with place.serve() as service:
        service.complete_task(prompt="Add up " + LONG, metadata={"customer": LONG})
        for address in ("", "new", "servers", "models", "access", "nowhere", "?q=nothing+like+this", "tasks/task_none"):
            open_view(browser, service, address)
            browser.until(
                "document.querySelector('main').innerText.length > 0 && !document.body.innerText.includes('Loading')"
            )
            place.judge()
        browser.page.keyboard.press("?")
        browser.until_shown("The next task of the list")
        place.judge()


@pytest.mark.slow
def test_a_form_asks_for_the_key_and_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    text, key = new_key("bob", ["submit", "read"])
    with closing(Browser(tmp_path / "browser", size=PHONE)) as browser:
        place = Place(browser, tmp_path, "", "")
        with Service(tmp_path, auth={"keys": [key.line]}) as service:
            service.client.headers["Authorization"] = f"Bearer {text}"
            task_id = service.submit(plan=sums(1))
            open_view(browser, service, f"tasks/{task_id}")
            browser.until_shown("This service requires an API key.")
            place.judge()
            sign_in(browser, "ar_wrong")
            browser.until_shown("This key is wrong.")
            place.judge()
            sign_in(browser, text)
            browser.until_shown("This needs the scope 'approve', which bob does not have.")
            assert browser.page.get_by_role("button", name="Approve", exact=True).is_disabled()
            assert browser.page.get_by_role("button", name="Revise", exact=True).is_enabled(), "it needs submit only"
            place.judge()
            browser.page.reload()
            until_task(browser, task_id)
            browser.page.get_by_role("link", name="Access").click()
            browser.until_shown("You are bob, by an API key.")
            browser.press("Sign out")
            browser.until_shown("This service requires an API key.")
        assert browser.mistakes == []
