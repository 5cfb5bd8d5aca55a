"""AG-UI at `/agui`: runs and interrupts of agent front ends are tasks and decisions."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agui import PROMPT, NodeClient, answer_to, make_input, name_thread, open_client, resume, run
from callers import KeyedService, serve_with_keys
from serving import BUILTINS, Service, sums
from waiting import eventually_sync

CALCULATOR = {"id": "calculator", "type": "builtin", "config": {"server": "calculator"}}
APPROVED_CALLS: list[Any] = [BUILTINS[0], {**CALCULATOR, "tools": {"add": {"approval": "call"}}}]
ASKING = {
    "id": "asking",
    "type": "local_stdio",
    "config": {
        "command": sys.executable,
        "args": ["-S", "-E", str(Path(__file__).parents[1] / "servers" / "asking_server.py")],
    },
    "tools": {"*": {"effect": "read", "open_world": False, "timeout_s": 50}},
}
KINDS = ("ag-ui", "rest", "single", "auto")


CALLERS = {
    "all": ("submit", "approve", "read"),
    "author": ("submit", "read"),
    "approver": ("approve", "read"),
    "reader": ("read",),
    "submitter": ("submit",),
    "blind": ("approve",),
}


@pytest.fixture(scope="module")
def keyed_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedService]:
    with serve_with_keys(tmp_path_factory.mktemp("keyed"), CALLERS) as service:
        yield service


def test_a_message_becomes_a_plan_that_an_interrupt_asks_about_and_resume_runs_it(service: Service) -> None:
    thread = name_thread()
    told = run(service, make_input(thread))
    kinds = [event["type"] for event in told.events]
    assert (kinds[0], told.events[0]["protocolVersion"]) == ("RUN_STARTED", "1.0")
    assert kinds[-3:] == ["STATE_SNAPSHOT", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
    assert [event["stepName"] for event in told.of("STEP_STARTED")] == ["planner"]
    asked = told.interrupt
    assert (asked["reason"], asked["responseSchema"]["required"]) == ("confirmation", ["approved"])
    assert "calculator.add(a=15, b=27)" in asked["message"]
    task = service.task(told.state["taskId"])
    assert (task["status"], task["thread"], task["prompt"]) == ("awaiting_approval", thread, PROMPT)
    assert (asked["metadata"]["digest"], asked["metadata"]["plan"]) == (task["plan_digest"], task["plan_object"])
    told = resume(service, thread, answer_to(asked, approved=True, comment="fine"))
    assert (told.outcome, told.end["result"]) == ("success", "Wrote 2 bytes to count.txt.")
    assert [event["stepName"] for event in told.of("STEP_FINISHED")] == ["s1", "s2"]
    calls = [event["toolCallName"] for event in told.of("TOOL_CALL_START")]
    assert calls == ["calculator.add", "filesystem.write_file"]
    assert [event["content"] for event in told.of("TOOL_CALL_RESULT")] == ["42", "Wrote 2 bytes to count.txt."]
    changes = [change for event in told.of("STATE_DELTA") for change in event["delta"]]
    assert {"op": "replace", "path": "/plan/steps/1/status", "value": "running"} in changes
    assert any(event["value"]["line"] == "Plan approved." for event in told.of("CUSTOM") if event["name"] == "log")
    assert service.task(task["task_id"])["approvals"][0]["comment"] == "fine"
    roles = [message["role"] for message in told.of("MESSAGES_SNAPSHOT")[-1]["messages"]]
    assert roles == ["user", "assistant", "assistant", "tool", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("entry", "outcome", "status"),
    [
        ({"approved": False}, "success", "rejected"),
        ({"status": "cancelled"}, "cancelled", "cancelled"),
        ({"approved": False, "comment": "Also add 1 and 2"}, "interrupt", "awaiting_approval"),
        ({"approved": False, "editedPlan": sums(1)}, "interrupt", "awaiting_approval"),
        ({"approved": True, "editedPlan": sums(1)}, "success", "completed"),
    ],
)
def test_a_plan_is_denied_abandoned_planned_again_or_edited(
    service: Service, entry: dict[str, Any], outcome: str, status: str
) -> None:
    thread = name_thread()
    told = run(service, make_input(thread))
    answer = answer_to(told.interrupt, **entry)
    ended = resume(service, thread, answer)
    assert (ended.outcome, ended.state["status"]) == (outcome, status)
    if outcome == "interrupt":
        assert ended.interrupt["id"] != told.interrupt["id"]
        assert ended.interrupt["metadata"]["revision"] == 2
    again = resume(service, thread, answer)
    assert (again.outcome, again.state) == (outcome, ended.state)


def test_a_plan_that_cannot_be_revised_is_asked_about_again_with_the_reason(service: Service) -> None:
    thread = name_thread()
    asked = run(service, make_input(thread)).interrupt
    answer = answer_to(asked, approved=False, comment="with more gusto")
    told = resume(service, thread, answer)
    kept = told.interrupt
    assert kept["id"] != asked["id"]
    assert [kept["metadata"][name] for name in ("revision", "digest")] == [1, asked["metadata"]["digest"]]
    assert kept["message"].startswith('No other plan could be made from "with more gusto": ')
    assert [event["stepName"] for event in told.of("STEP_FINISHED")] == ["planner"]
    said = [event["delta"] for event in told.of("TEXT_MESSAGE_CONTENT")]
    assert said[0].startswith("No other plan could be made, so revision 1 stays: ")
    assert resume(service, thread, answer).interrupt == kept, "an answer that is sent twice changes nothing"
    assert resume(service, thread, answer_to(asked, approved=True)).outcome == "interrupt_expired"
    again = resume(service, thread, answer_to(kept, approved=False, comment="louder")).interrupt
    assert again["id"] not in {asked["id"], kept["id"]}
    assert resume(service, thread, answer_to(again, approved=True)).outcome == "success"


def test_a_message_that_is_sent_again_is_the_same_task_and_the_next_one_another(service: Service) -> None:
    thread = name_thread()
    first = run(service, make_input(thread))
    again = run(service, make_input(thread))
    assert again.interrupt == first.interrupt
    busy = run(service, make_input(thread, message_id="m2"))
    assert (busy.outcome, len(busy.events)) == ("interrupts_open", 2)
    assert first.interrupt["id"] in busy.end["message"]
    resume(service, thread, answer_to(first.interrupt, approved=False))
    assert run(service, make_input(thread)).state["status"] == "rejected"
    other = run(service, make_input(thread, message_id="m2"))
    assert other.interrupt["metadata"]["taskId"] != first.interrupt["metadata"]["taskId"]
    assert len(service.get("/v1/tasks", thread=thread)["tasks"]) == 2
    reused = service.client.post("/agui", json=make_input(thread, "Say hello", message_id="m1"))
    assert reused.status_code == 200
    assert len(service.get("/v1/tasks", thread=thread)["tasks"]) == 2


def say(thread: str, text: str, message_id: str, *entries: Any, **more: Any) -> Any:
    """Return the input of a run in which the user types something beside answers, after what was said before."""
    earlier = [{"id": "m1", "role": "user", "content": PROMPT}, {"id": "p", "role": "assistant", "content": "A plan"}]
    messages = [*earlier, {"id": message_id, "role": "user", "content": text}]
    return make_input(thread, None, resume=list(entries), **more) | {"messages": messages}


def test_who_types_instead_of_answering_has_the_plan_made_again(service: Service) -> None:
    thread = name_thread()
    asked = run(service, make_input(thread)).interrupt
    steered = say(thread, "Also add 1 and 2", "m2", answer_to(asked, status="cancelled"))
    told = run(service, steered)
    assert (told.outcome, told.interrupt["metadata"]["revision"]) == ("interrupt", 2)
    task = service.task(asked["metadata"]["taskId"])
    assert [entry["comment"] for entry in task["approvals"]] == ["Also add 1 and 2"]
    assert run(service, steered).interrupt == told.interrupt
    assert run(service, make_input(thread, "Also add 1 and 2", message_id="m2")).interrupt == told.interrupt
    approved = answer_to(told.interrupt, approved=True)
    refused = run(service, say(thread, "And 3", "m3", approved))
    assert (refused.outcome, len(refused.events)) == ("resume_invalid", 2)
    assert run(service, say(thread, "And 3", "m3")).outcome == "interrupts_open"
    assert run(service, say(thread, "Also add 1 and 2", "m2", approved)).state["result"].endswith("3")
    assert run(service, say(thread, "Also add 1 and 2", "m2")).state["result"].endswith("3")
    assert len(service.get("/v1/tasks", thread=thread)["tasks"]) == 1


def test_who_types_instead_of_deciding_about_a_call_has_the_task_cancelled_and_another_one_made(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": APPROVED_CALLS}), encoding="utf-8")
    with service:
        thread = name_thread()
        plan = run(service, make_input(thread)).interrupt
        call = resume(service, thread, answer_to(plan, approved=True)).interrupt
        empty = run(service, say(thread, " ", "m2", answer_to(call, status="cancelled")))
        assert (empty.outcome, len(empty.events)) == ("invalid_input", 2)
        steered = say(thread, "Add 1 and 2", "m2", answer_to(call, status="cancelled"))
        told = run(service, steered)
        assert "calculator.add(a=1, b=2)" in told.interrupt["message"]
        assert run(service, steered).interrupt == told.interrupt
        tasks = service.get("/v1/tasks", thread=thread)["tasks"]
        assert [task["status"] for task in tasks] == ["awaiting_approval", "cancelled"]


def test_answers_that_do_not_fit_are_refused_and_change_nothing(service: Service) -> None:
    thread = name_thread()
    asked = run(service, make_input(thread)).interrupt
    fine = answer_to(asked, approved=True)
    for entries, code in (
        ([{**fine, "interruptId": "task_0:plan:1:sha256:0"}], "interrupt_unknown"),
        ([{**fine, "interruptId": asked["id"][:-1] + "x"}], "interrupt_expired"),
        ([fine, fine], "resume_invalid"),
        ([answer_to(asked, approved="yes")], "invalid_input"),
        ([answer_to(asked, approved=True, more=1)], "invalid_input"),
        ([answer_to(asked)], "invalid_input"),
        ([answer_to(asked, approved=True, editedPlan={"steps": []})], "invalid_plan"),
        ([answer_to(asked, approved=True, editedPlan=sums(1) | {"steps": [{"id": "x"}]})], "invalid_plan"),
    ):
        refused = resume(service, thread, *entries)
        assert (refused.outcome, len(refused.events)) == (code, 2), refused.end
    assert resume(service, name_thread(), fine).outcome == "interrupt_unknown"
    task = service.task(asked["metadata"]["taskId"])
    assert (task["status"], task["plan_revision"]) == ("awaiting_approval", 1)
    assert resume(service, thread, fine).outcome == "success"
    assert resume(service, thread, answer_to(asked, approved=False)).outcome == "interrupt_expired"


def test_an_answer_to_an_earlier_plan_approves_no_later_one(service: Service) -> None:
    thread = name_thread()
    asked = run(service, make_input(thread)).interrupt
    task_id = asked["metadata"]["taskId"]
    assert service.client.post(f"/v1/tasks/{task_id}/revise", json={"feedback": "Also add 1 and 2"}).status_code == 202
    newer = run(service, make_input(thread, None), "/agui/connect").interrupt
    assert newer["metadata"]["revision"] == 2
    assert resume(service, thread, answer_to(asked, approved=True)).outcome == "interrupt_expired"
    assert service.task(task_id)["status"] == "awaiting_approval"
    assert resume(service, thread, answer_to(newer, approved=True)).outcome == "success"


def test_a_call_is_announced_before_it_is_approved_and_not_again(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": APPROVED_CALLS}), encoding="utf-8")
    with service:
        for approved, outcome in ((True, "success"), (False, "call_denied")):
            thread = name_thread()
            plan = run(service, make_input(thread)).interrupt
            told = resume(service, thread, answer_to(plan, approved=True))
            asked = told.interrupt
            assert (asked["reason"], asked["metadata"]["arguments"]) == ("tool_call", {"a": 15, "b": 27})
            (announced,) = told.of("TOOL_CALL_START")
            assert announced["toolCallId"] == asked["toolCallId"]
            told = resume(service, thread, answer_to(asked, approved=approved))
            assert told.outcome == outcome
            assert asked["toolCallId"] not in [event["toolCallId"] for event in told.of("TOOL_CALL_START")]
            assert told.of("TOOL_CALL_RESULT")[0]["toolCallId"] == asked["toolCallId"]


def test_a_call_is_sent_with_edited_arguments_and_the_messages_show_them(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": APPROVED_CALLS}), encoding="utf-8")
    with service:
        thread = name_thread()
        plan = run(service, make_input(thread)).interrupt
        asked = resume(service, thread, answer_to(plan, approved=True)).interrupt
        assert asked["metadata"]["inputSchema"]["properties"].keys() == {"a", "b"}
        wrongs: list[dict[str, Any]] = [
            {"approved": True, "editedArgs": {"a": "x", "b": 1}},
            {"approved": False, "editedArgs": {}},
        ]
        for wrong in wrongs:
            assert resume(service, thread, answer_to(asked, **wrong)).outcome == "invalid_input"
        answer = answer_to(asked, approved=True, editedArgs={"a": 1, "b": 2})
        told = resume(service, thread, answer)
        assert (told.outcome, told.of("TOOL_CALL_RESULT")[0]["content"]) == ("success", "3")
        calls = [
            call for message in told.of("MESSAGES_SNAPSHOT")[-1]["messages"] for call in message.get("toolCalls", ())
        ]
        assert json.loads(calls[0]["function"]["arguments"]) == {"a": 1, "b": 2}
        assert resume(service, thread, answer).outcome == "success", "an answer that is sent twice changes nothing"
        other = answer_to(asked, approved=True, editedArgs={"a": 1, "b": 3})
        assert resume(service, thread, other).outcome == "interrupt_expired"


def test_questions_of_servers_are_interrupts_and_all_that_is_open_is_answered_at_once(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [*BUILTINS, ASKING]}), encoding="utf-8")
    steps = [{"id": name, "kind": "tool", "server": "asking", "tool": "form"} for name in ("one", "two")]
    with service:
        service.refresh_tools()
        thread = name_thread()
        plan = run(service, make_input(thread)).interrupt
        edited = answer_to(plan, approved=True, editedPlan={"goal": "ask", "steps": steps})
        first = resume(service, thread, edited).interrupts[0]
        assert (first["reason"], first["responseSchema"]["required"]) == ("input_required", ["name"])
        eventually_sync(lambda: len(service.task(first["metadata"]["taskId"])["attention"]) == 2)
        assert resume(service, thread, answer_to(first, name="Ann")).outcome == "resume_incomplete"
        asked = run(service, make_input(thread, None), "/agui/connect").interrupts
        assert [one["metadata"]["stepId"] for one in asked] == ["one", "two"]
        assert resume(service, thread, edited).interrupts == asked
        wrong = [answer_to(asked[0], name="Ann"), answer_to(asked[1], count=10)]
        assert resume(service, thread, *wrong).outcome == "invalid_input"
        assert len(service.task(first["metadata"]["taskId"])["attention"]) == 2
        entries = [
            answer_to(asked[0], status="cancelled"),
            answer_to(asked[1], status="cancelled", action="decline"),
        ]
        told = resume(service, thread, *entries)
        assert told.outcome == "success"
        assert sorted(json.loads(event["content"])["action"] for event in told.of("TOOL_CALL_RESULT")) == [
            "cancel",
            "decline",
        ]
        assert resume(service, thread, *entries).outcome == "success"


def test_a_task_that_fails_ends_its_run_with_an_error(service: Service) -> None:
    thread = name_thread()
    asked = run(service, make_input(thread, "Read missing.txt")).interrupt
    told = resume(service, thread, answer_to(asked, approved=True))
    assert told.end["type"] == "RUN_ERROR"
    assert "missing.txt" in told.end["message"]
    assert told.state["status"] == "failed"
    assert [event["runId"] for event in told.of("RUN_STARTED")] == [
        told.events[0]["runId"],
        told.events[0]["runId"] + "-end",
    ]
    given = make_input(thread, "Add 1 and 2", message_id="m2", resume=[answer_to(asked, approved=True)])
    assert run(service, given).outcome == "interrupt"  # as a client does that still holds the interrupt


def test_connect_tells_the_whole_thread_and_follows_it(service: Service) -> None:
    thread = name_thread()
    assert run(service, make_input(thread, None), "/agui/connect").events == []
    first = run(service, make_input(thread)).interrupt
    resume(service, thread, answer_to(first, approved=False))
    second = run(service, make_input(thread, message_id="m2"))
    told = run(service, make_input(thread, None), "/agui/connect")
    assert told.interrupt == second.interrupt
    messages = told.of("MESSAGES_SNAPSHOT")[-1]["messages"]
    assert [message["id"] for message in messages][::2] == ["m1", "m2"]
    assert run(service, make_input(thread, None)).interrupt == second.interrupt


def test_bodies_that_are_no_run_are_refused(service: Service) -> None:
    for path in ("/agui", "/agui/connect"):
        for body, status in (
            ({}, 422),
            ({"threadId": "t", "runId": "r", "messages": [{"role": "user"}]}, 422),
            ([], 422),
        ):
            assert service.client.post(path, json=body).status_code == status
        for thread in ("", "x" * 201):
            refused = service.client.post(path, json=make_input(thread))
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "threadId")
        assert service.client.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
        assert service.client.post(path, content=b"{", headers={"Content-Type": "application/json"}).status_code == 400
    thread = name_thread()
    assert run(service, make_input(thread, None)).outcome == "no_message"
    assert service.client.post("/agui", json=make_input(thread, " ")).status_code == 422
    parts = [{"type": "text", "text": "Add 1"}, {"type": "text", "text": "and 2"}]
    given = make_input(thread) | {"messages": [{"id": "m", "role": "user", "content": parts}]}
    run(service, given)
    assert service.get("/v1/tasks", thread=thread)["tasks"][0]["prompt"] == "Add 1\nand 2"


def test_each_part_of_a_run_needs_its_scope(keyed_service: KeyedService) -> None:
    thread = name_thread()
    asked = run(keyed_service.service, make_input(thread), key=keyed_service.keys["author"]).interrupt
    approval = make_input(thread, None, resume=[answer_to(asked, approved=True)])
    edit = make_input(thread, None, resume=[answer_to(asked, approved=True, editedPlan=sums(1))])
    for path, given, caller in (
        ("/agui", make_input(name_thread()), "reader"),
        ("/agui", make_input(name_thread()), "submitter"),
        ("/agui", make_input(name_thread()), "approver"),
        ("/agui/connect", make_input(thread, None), "submitter"),
        ("/agui", approval, "author"),
        ("/agui", approval, "blind"),
        ("/agui", edit, "approver"),
    ):
        refused = keyed_service.call("POST", path, caller, json=given)
        assert refused.status_code == 403, (given, caller)
        envelope = {"method": "agent/connect" if path.endswith("connect") else "agent/run", "body": given}
        refused = keyed_service.call("POST", "/copilotkit", caller, json={**envelope, "params": {"agentId": "default"}})
        assert (refused.status_code, refused.json()["error"]) == (403, "Forbidden")
    stop = {"method": "agent/stop", "params": {"agentId": "default", "threadId": thread}}
    assert keyed_service.call("POST", "/copilotkit", "reader", json=stop).status_code == 403
    assert run(keyed_service.service, approval, key=keyed_service.keys["approver"]).outcome == "success"


def test_copilotkit_is_told_what_is_wrong_in_its_own_form(service: Service) -> None:
    info = service.get("/copilotkit/info")
    assert (info["mode"], info["suggestions"], set(info["threadEndpoints"].values())) == ("sse", False, {False})
    assert service.client.post("/copilotkit", json={"method": "info"}).json() == info
    thread = name_thread()
    for path, body, status in (
        ("/copilotkit/agent/nobody/run", make_input(thread), 404),
        ("/copilotkit/agent/default/run", {}, 422),
        ("/copilotkit", {}, 400),
        ("/copilotkit", {"method": "agent/fly"}, 400),
        ("/copilotkit", {"method": "agent/run", "params": {}}, 400),
        ("/copilotkit", {"method": "agent/run", "params": {"agentId": "nobody"}, "body": make_input(thread)}, 404),
        ("/copilotkit", {"method": "agent/run", "params": {"agentId": "default"}}, 422),
        ("/copilotkit", {"method": "agent/stop", "params": {"agentId": "default"}}, 400),
    ):
        refused = service.client.post(path, json=body)
        assert (refused.status_code, set(refused.json()) - {"errors"}) == (status, {"error", "message"}), (path, body)
    path = "/copilotkit/agent/default"
    assert run(service, make_input(thread, None), f"{path}/connect").events == []
    assert service.client.post(f"{path}/stop/{thread}").json()["stopped"] is False
    told = run(service, make_input(thread), f"{path}/run")
    assert service.client.post(f"{path}/stop/{thread}").json()["interrupt"]["code"] == "STOPPED"
    assert service.task(told.state["taskId"])["status"] == "cancelled"
    assert service.get("/v1/tasks", thread=thread)["tasks"][0]["task_id"] == told.state["taskId"]


def approve(client: NodeClient, number: int, thread: str, known: dict[str, Any], **payload: Any) -> dict[str, Any]:
    (interrupt,) = known["interrupts"]
    return client.do(number, thread, resume=[answer_to(interrupt, **(payload or {"approved": True}))])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_real_clients_have_a_plan_approved_denied_and_cancelled(service: Service, kind: str) -> None:
    with open_client(service, kind) as client:
        thread = name_thread()
        known = client.do(1, thread, say=PROMPT, messageId="m1")
        assert (known["error"], known["state"]["status"]) == (None, "awaiting_approval")
        known = approve(client, 1, thread, known)
        assert (known["error"], known["interrupts"], known["state"]["result"]) == (
            None,
            [],
            "Wrote 2 bytes to count.txt.",
        )
        calls = [message for message in known["messages"] if message["role"] == "tool"]
        assert [call["content"] for call in calls] == ["42", "Wrote 2 bytes to count.txt."]
        known = client.do(1, thread, say="Read missing.txt", messageId="m2")
        known = approve(client, 1, thread, known)
        assert [event["type"] for event in known["events"]][-1] == "RUN_ERROR"
        known = client.do(1, thread, say="Add 1 and 2", messageId="m3")
        known = approve(client, 1, thread, known, approved=False)
        assert known["state"]["status"] == "rejected"
        known = client.do(1, thread, say="Add 1 and 3", messageId="m4")
        known = client.do(1, thread, resume=[answer_to(known["interrupts"][0], status="cancelled")])
        assert (known["error"], known["state"]["status"]) == (None, "cancelled")
        assert [task["status"] for task in service.get("/v1/tasks", thread=thread)["tasks"]] == [
            "cancelled",
            "rejected",
            "failed",
            "completed",
        ]
