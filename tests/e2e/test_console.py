"""The page at `/`, in a browser and by its parts. Skipped without Chromium or Node."""

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.keys import new_key
from browser import Browser
from console import STATUS, open_task, open_view, overflows, serve, sign_in, submit
from harms import HARMS, harm
from harness import House
from model_server import ModelServer
from model_server.replies import Fault, Text
from model_server.requests import Request
from servers.asking_server import EVIL
from serving import PATIENCE_S, Service
from shifty import ShiftyHouse, plan_of

MISSING = {
    "id": "s3",
    "kind": "tool",
    "server": "filesystem",
    "tool": "read_file",
    "arguments": {"path": "missing.txt"},
    "depends_on": ["s1", "s2"],
}
PLAN: dict[str, Any] = {
    "steps": [
        {
            "id": "s1",
            "kind": "tool",
            "title": "Save \u200bit",
            "server": "filesystem",
            "tool": "write_file",
            "arguments": {"path": "report\u202egpj.txt", "content": "x"},
        },
        {
            "id": "s2",
            "kind": "tool",
            "server": "filesystem",
            "tool": "write_file",
            "arguments": {"path": "reportgpj.txt\ufe0f", "content": "x"},
            "depends_on": ["s1"],
        },
    ]
}
REASONS = "Changes to the plan, or a reason to reject it"
AFTER = {
    "Done": ["completed", "completed"],
    "Retry": ["completed", "completed"],
    "Skip": ["skipped", "skipped"],
    "Fail": ["failed", "skipped"],
}
SERVERS = Path(__file__).parents[1] / "servers"
LONGEST_TASK = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
}).observe({ entryTypes: ["longtask"] });
"""
WRITING = {
    "plan": ["The model is writing the plan", '{"goal": "think", "steps'],
    "step": ["The model is writing in step s1", "<b>A long text</b>"],
}
WRITTEN = {"plan": ["Write <b>long</b>.", "It may use no tools."], "step": ["Result", "<b>A long text</b>"]}


def plan_that_keeps(label: str) -> dict[str, Any]:
    """Return a plan that writes the output of an untrusted tool to a file."""
    look = {"id": "look", "kind": "tool", "server": "ledger", "tool": "look", "arguments": {"label": label}}
    arguments = {"path": "said.txt", "content": "It said: ${look.text}"}
    save = {"id": "save", "kind": "tool", "server": "filesystem", "tool": "write_file", "arguments": arguments}
    return {"goal": "keep what it says", "steps": [look, save]}


@pytest.mark.slow
def test_the_page_follows_what_happens_elsewhere_and_shows_what_would_hide(service: Service, browser: Browser) -> None:
    task_id = service.submit(prompt="Save\u202e it", plan=PLAN)
    open_task(browser, service, task_id)
    browser.until_shown(r'Creates report\u202egpj.txt with "x".')
    shown = browser.value_of("document.querySelector('main').innerText")
    assert r"Save\u202e it" in shown
    assert r'Look closely: "report\u202egpj.txt" and "reportgpj.txt\ufe0f" differ only' in shown
    browser.value_of("window.step = document.querySelector('.step')")
    service.approve(task_id)
    browser.until(f"{STATUS} === 'completed'")
    browser.until_shown(r"to report\u202egpj.txt.")
    assert browser.value_of("window.step.isConnected"), "what did not change is not drawn anew"
    browser.until("document.querySelector('.row [aria-current] .status').innerText === 'completed'")


@pytest.mark.slow
def test_an_integer_that_a_script_would_round_is_shown_with_all_its_digits(service: Service, browser: Browser) -> None:
    step = {"id": "s1", "title": "Add", "kind": "tool", "server": "calculator", "tool": "add"}
    plan = {"goal": "add", "steps": [{**step, "arguments": {"a": 1234567890123456789, "b": -(2**60)}}]}
    open_task(browser, service, service.submit(plan=plan))
    browser.until_shown("Adds 1234567890123456789 and -1152921504606846976.")
    browser.press("Exact call of step 1")
    browser.until("document.querySelector('.values')?.innerText.includes('1234567890123456789')")


@pytest.mark.slow
def test_an_event_source_gets_every_line_and_does_not_come_back_after_the_last(
    service: Service, browser: Browser
) -> None:
    task_id = service.submit(plan=PLAN)
    open_view(browser, service)
    browser.value_of(f"window.stream = new EventSource('/v1/tasks/{task_id}/stream')")
    browser.value_of("window.lines = []; stream.onmessage = ({data}) => lines.push(data)")
    service.approve(task_id)
    browser.until("stream.readyState === EventSource.CLOSED")
    lines = browser.value_of("lines")
    assert lines[-1] == "[DONE]"
    assert lines.count("[DONE]") == 1
    assert any(line.startswith("Step s1 started: Save ") for line in lines)


@pytest.mark.slow
def test_a_plan_is_asked_for_revised_and_the_second_revision_approved(own_service: Service, browser: Browser) -> None:
    submit(browser, own_service, "write 'hello' to a.txt")
    browser.until_shown("Revision 1", 'Creates a.txt with "hello".', "writes a new file")
    browser.press("Revise")
    browser.until_shown("Describe the changes first")
    browser.write(REASONS, "read the file a.txt")
    browser.press("Revise")
    browser.until_shown("Revision 2", "What changed since revision 1", "Reads a.txt", "A new plan was requested")
    browser.until("document.querySelector('.changes')?.innerText.includes('Added step 2')")
    (task_id,) = [task["task_id"] for task in own_service.get("/v1/tasks")["tasks"]]
    digest = own_service.task(task_id)["plan_digest"]
    assert browser.value_of(f"document.body.innerText.includes('{digest[:19]}')")
    assert browser.value_of(f"document.querySelector('.plan code').title === '{digest}'")
    browser.press("Approve")
    browser.until("document.querySelector('.task .status')?.innerText === 'completed'")
    browser.until_shown("Result", "Completed", "Used: 2 calls")
    assert [entry["digest"] for entry in own_service.task(task_id)["approvals"]][-1] == digest


@pytest.mark.slow
def test_a_plan_is_rejected_with_a_reason_and_another_task_cancelled(own_service: Service, browser: Browser) -> None:
    rejected = own_service.submit(plan=PLAN)
    open_task(browser, own_service, rejected)
    browser.write(REASONS, "not that file")
    browser.press("Reject")
    browser.until_shown("Plan rejected: not that file")
    assert own_service.task(rejected)["approvals"][0]["comment"] == "not that file"
    cancelled = own_service.submit(plan=PLAN)
    open_task(browser, own_service, cancelled)
    browser.press("Cancel")
    browser.until("document.querySelector('.task .status')?.innerText === 'cancelled'")
    assert own_service.task(cancelled)["status"] == "cancelled"


@pytest.mark.slow
def test_a_finished_task_is_run_again_and_its_plan_is_opened(own_service: Service, browser: Browser) -> None:
    failed = own_service.submit(plan={"goal": "g", "steps": [*PLAN["steps"], MISSING]})
    own_service.approve(failed)
    assert own_service.wait_for_end(failed)["status"] == "failed"
    open_task(browser, own_service, failed)
    browser.press("Run again from the failed step")
    browser.until_shown(f"taken from task {failed}", "Approve")


@pytest.mark.slow
def test_a_decision_that_comes_too_late_shows_the_task_as_it_stands(service: Service, browser: Browser) -> None:
    task_id = service.submit(plan=PLAN)
    open_task(browser, service, task_id)
    browser.until_shown("Should this plan run?")
    # The page has not heard of it yet when the button is pressed.
    reject = f"fetch('v1/tasks/{task_id}/reject', {{ method: 'POST' }}).then(() => window.approve.click())"
    browser.value_of(f"window.approve = document.querySelector('.question .primary'); {reject}")
    browser.until_shown("Not done: the task has changed.", "rejected")
    browser.until("document.querySelector('.question') === null")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["Approve", "Deny"])
def test_a_concrete_call_is_shown_with_all_it_holds_and_approved_or_denied(
    tmp_path: Path, browser: Browser, verb: str
) -> None:
    house = House(tmp_path)
    house.write_registry(tools={"look": {"effect": "read", "idempotent": True}})
    with serve(tmp_path) as service:
        task_id = service.submit(plan=plan_that_keeps("one\u202etwo\x1b"))
        open_task(browser, service, task_id)
        browser.until_shown("before its call: its arguments")
        browser.press("Approve")
        browser.until_shown(
            "May step save make this call?", "filesystem.write_file", "its arguments contain data from outside"
        )
        shown = browser.value_of("document.querySelector('.question .values').innerText")
        assert shown.split("\n")[:4] == ["path", "said.txt", "content", r"It said: counted one\u202etwo\x1b"]
        assert not (house.files / "said.txt").exists()
        browser.write("Comment (optional)", "seen")
        browser.press(verb)
        browser.until(
            f"document.querySelector('.task .status').innerText === '{ {'Approve': 'completed'}.get(verb, 'failed') }'"
        )
        last = service.task(task_id)["approvals"][-1]
        assert (last["decision"], last["step_id"], last["comment"]) == (verb.lower(), "save", "seen")
    assert (house.files / "said.txt").exists() == (verb == "Approve")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["Done", "Retry", "Skip", "Fail"])
def test_an_unknown_outcome_is_explained_and_resolved(tmp_path: Path, browser: Browser, verb: str) -> None:
    house = ShiftyHouse(tmp_path)
    house.write_entry(tools={"die": {"idempotent": False}, "*": {"open_world": False}})
    plan = plan_of("die:one", "count:two").model_dump(mode="json")
    plan["steps"][1]["arguments"] = {"label": "${s1.output.said}"} if verb == "Done" else {"label": "two"}
    with serve(tmp_path) as service:
        task_id = service.submit(plan=plan)
        open_task(browser, service, task_id)
        browser.press("Approve")
        browser.until_shown("Did this call of step s1 take effect?", "label\none", "Needed by: s2.", "No answer came.")
        browser.until_shown("It took effect.", "It is called again", "So are the steps that need it: s2.")
        browser.write("The output of the call, as JSON or text (optional)", '{"said": "told"}')
        browser.press(verb)
        browser.until("['completed', 'failed'].includes(document.querySelector('.task .status').innerText)")
        task = service.wait_for_end(task_id)
    assert task["approvals"][-1]["decision"] == verb.lower()
    assert [step["status"] for step in task["steps"]] == AFTER[verb]
    assert house.counted == {"Done": ["one", "told"], "Retry": ["one", "one", "two"]}.get(verb, ["one"])


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["Answer", "Decline", "Dismiss"])
def test_a_question_of_a_server_is_shown_with_its_server_and_answered(
    tmp_path: Path, browser: Browser, verb: str
) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    House(tmp_path).write_registry(config=config, tools={"*": {"effect": "read"}})
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "form"}
    with serve(tmp_path) as service:
        task_id = service.submit(plan={"goal": "ask", "steps": [step]})
        open_task(browser, service, task_id)
        browser.press("Approve")
        browser.until_shown("ledger asks you", "Who are you?", "ledger.form", "Your name")
        browser.press("Answer")
        browser.until_shown("content.name")
        browser.write("name", "Ann")
        browser.press(verb)
        browser.until("document.querySelector('.task .status')?.innerText === 'completed'")
        got = json.loads(service.task(task_id)["result"])
    answered = {"action": "accept", "content": {"name": "Ann", "sure": False}}
    assert got == {"Answer": answered, "Decline": {"action": "decline"}, "Dismiss": {"action": "cancel"}}[verb]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["Answer", "Decline", "Dismiss"])
def test_of_a_hostile_form_what_can_be_shown_is_shown_and_the_rest_is_named(
    tmp_path: Path, browser: Browser, verb: str
) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    House(tmp_path).write_registry(config=config, tools={"*": {"effect": "read", "timeout_s": 60}})
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "hostile"}
    with serve(tmp_path) as service:
        task_id = service.submit(plan={"goal": "ask", "steps": [step]})
        service.approve(task_id)
        browser.before_each_page(LONGEST_TASK)
        open_task(browser, service, task_id)
        browser.until_shown(
            "Can you show this?",
            "Fields of the form that are too large to be shown: large n",
            "Parts of this field that cannot be shown: enum.",
            f"{EVIL}: {EVIL} Parts of this field that cannot be shown: pattern.",
        )
        assert overflows(browser) == "[]"
        for label in ("name", "__proto__ optional", "constructor optional", "field 1 optional"):
            browser.write(label, "Ann")
        assert browser.value_of("window.longest") < 5000, "no task of the page keeps it from answering"
        browser.press(verb)
        browser.until(f"{STATUS} === 'completed'")
        got = json.loads(service.task(task_id)["result"])
        assert browser.value_of("window.hacked") is None
    content = dict.fromkeys(("name", "__proto__", "constructor", "field 1"), "Ann")
    assert (
        got
        == {
            "Answer": {"action": "accept", "content": content},
            "Decline": {"action": "decline"},
            "Dismiss": {"action": "cancel"},
        }[verb]
    )


@pytest.mark.slow
def test_what_a_server_reports_is_shown_while_it_works(tmp_path: Path, browser: Browser) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "working_server.py")]}
    House(tmp_path).write_registry(config=config, tools={"*": {"effect": "read", "timeout_s": 2}})
    step = {"id": "s1", "kind": "tool", "server": "ledger", "tool": "work", "arguments": {"label": "20"}}
    with serve(tmp_path) as service:
        open_task(browser, service, service.submit(plan={"goal": "work", "steps": [step]}))
        browser.press("Exact call of step 1")
        browser.until_shown("at most 2 s without progress, 20 s in all")
        browser.press("Approve")
        browser.until_shown("Step s1 reports progress: ", " of 20, part ")
        browser.until("document.querySelector('.task .status')?.innerText === 'completed'")
        assert "reports progress" not in browser.value_of("document.body.innerText"), "it is over"


def test_a_changed_journal_is_told_and_nothing_can_be_decided(tmp_path: Path, browser: Browser) -> None:
    House(tmp_path)
    with serve(tmp_path) as service:
        task_id = service.submit("count")
        harm(service.settings.storage.database_path, HARMS["the prompt was changed"], task_id)
        assert service.client.post(f"/v1/tasks/{task_id}/approve").status_code == 409
        open_task(browser, service, task_id)
        browser.until_shown("The stored journal was changed at record 1", "An administrator can delete it.")
        buttons = browser.value_of("[...document.querySelectorAll('main button')].map((one) => one.innerText)")
        assert not {"Approve", "Reject", "Revise", "Cancel"} & set(buttons)


@pytest.mark.slow
def test_nothing_that_a_task_or_a_tool_says_becomes_part_of_the_page(tmp_path: Path, browser: Browser) -> None:
    House(tmp_path).write_registry(tools={"look": {"effect": "read", "idempotent": True}})
    evil = "<img src=x onerror=window.hacked=1></script><b>"
    with serve(tmp_path) as service:
        plan = plan_that_keeps(evil)
        plan["goal"] = evil
        plan["steps"][0]["title"] = f"{evil}\n2. Nothing else"
        plan["steps"].append({"id": "think", "kind": "tool", "server": "text", "tool": "head", "title": f"{evil} — x"})
        plan["steps"][-1]["arguments"] = {"text": evil * 5}
        open_task(browser, service, service.submit(prompt=f"{evil}\n{evil}", plan=plan))
        browser.until_shown(f'Asks the server ledger to run look with label "{evil}".')
        browser.press("Exact call of step 1")
        browser.until_shown(f"{evil} 2. Nothing else")
        browser.press("Exact call of step 3")
        browser.until_shown(evil * 5, f"{evil} — x")
        browser.press("Approve")
        browser.until_shown(f"It said: counted {evil}", "Step look got its answer after")
        browser.write("Comment (optional)", evil)
        browser.press("Approve")
        browser.until("document.querySelector('.task .status')?.innerText === 'completed'")
        browser.until_shown("Result", f"approve (step save): {evil}")
        assert browser.value_of("document.querySelector('.log').innerText").count(evil) > 3
        assert browser.value_of("document.querySelectorAll('img, b, script').length") == 3, "its own scripts"
        assert browser.value_of("document.querySelectorAll('.task a').length") == 2, "Inbox and Duplicate"
        assert browser.value_of("window.hacked") is None


@pytest.mark.slow
@pytest.mark.parametrize("what", ["plan", "step"])
def test_what_a_model_writes_is_shown_until_it_is_there(tmp_path: Path, browser: Browser, what: str) -> None:
    plan = {"goal": "think", "steps": [{"id": "s1", "kind": "agent", "instruction": "Write <b>long</b>.", "tools": []}]}
    begun = threading.Event()

    async def half(_: Request) -> Fault:
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        return Fault("stall_stream", text=json.dumps(plan) if what == "plan" else "<b>A long text</b> " * 9)

    with ModelServer() as models:
        models.on("", half)
        with serve(tmp_path, openai={"base_url": models.base_url, "model": "test-model"}) as service:
            if what == "plan":
                submit(browser, service, "Think")
                browser.until_shown("Submitted: Think")
            else:
                open_task(browser, service, service.submit(plan=plan))
                browser.press("Approve")
                browser.until_shown("Step s1 started")
            begun.set()
            browser.until_shown(*WRITING[what])
            models.release()
            browser.until("document.querySelector('.writing') === null")
            browser.until_shown(*WRITTEN[what])
            assert browser.value_of("document.querySelector('b') === null")


@pytest.mark.slow
def test_what_the_model_was_asked_is_unfolded_on_demand(tmp_path: Path, browser: Browser) -> None:
    with ModelServer() as models:
        models.next(Text("I would <b>write</b> it."), Text(json.dumps(PLAN | {"goal": "Save it"})))
        with serve(tmp_path, openai={"base_url": models.base_url, "model": "test-model"}) as service:
            submit(browser, service, "Think")
            browser.until_shown("What the model was asked")
            assert "I would" not in browser.value_of("document.body.innerText")
            browser.value_of("document.querySelector('.planning summary').click()")
            browser.until_shown("Attempt 1, for revision 1: invalid plan", "I would <b>write</b> it.", "holds no plan")
            browser.until_shown("Attempt 2, for revision 1: planned", "Answered before")


@pytest.mark.slow
def test_with_keys_the_page_asks_for_one_and_calls_a_wrong_one_wrong(tmp_path: Path, browser: Browser) -> None:
    text, key = new_key("ann", ["submit", "read", "approve"])
    with serve(tmp_path, auth={"keys": [key.line]}) as service:
        service.client.headers["Authorization"] = f"Bearer {text}"
        task_id = service.submit(plan=PLAN)
        open_view(browser, service, f"tasks/{task_id}")
        sign_in(browser, "wrong")
        browser.until_shown("This key is wrong.")
        sign_in(browser, text)
        browser.press("Approve")
        browser.until_shown("Plan approved by ann.", "Completed", "ann: approve")


@pytest.mark.slow
def test_who_may_not_approve_sees_why(tmp_path: Path, browser: Browser) -> None:
    text, key = new_key("bob", ["submit", "read"])
    with serve(tmp_path, auth={"keys": [key.line]}) as service:
        service.client.headers["Authorization"] = f"Bearer {text}"
        open_view(browser, service, f"tasks/{service.submit(plan=PLAN)}")
        sign_in(browser, text)
        browser.until_shown("This needs the scope 'approve', which bob does not have.")
        assert browser.page.get_by_role("button", name="Approve", exact=True).is_disabled()


@pytest.mark.slow
def test_a_change_that_cannot_be_planned_keeps_the_plan_and_says_why(own_service: Service, browser: Browser) -> None:
    submit(browser, own_service, "Write hello to a.txt")
    browser.until_shown("Creates a.txt", "A plan can be changed by")
    browser.write("Changes to the plan, or a reason to reject it", "make it <b>nicer</b> for my boss")
    browser.press("Revise")
    browser.until_shown("The plan is unchanged:", "make it <b>nicer</b> for my boss")
    browser.press("Approve")
    browser.until(f"{STATUS} === 'completed'")
