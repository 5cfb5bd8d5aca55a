"""The format of the journal: every later version must read what is written today."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from agent_runtime.domain import events as ev
from agent_runtime.domain.caller import Caller
from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedModel, PinnedPolicy
from agent_runtime.domain.plan import AgentStep, AllowedTool, ToolStep
from agent_runtime.domain.signature import SignedEvent
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.tools import Effect, StoredResult, ToolDefinition
from agent_runtime.domain.usage import Usage

AT = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
CONTRACT = Contract(
    goal="g",
    steps=(
        ToolStep(id="s1", kind="tool", server="files", tool="read", arguments={"path": "é"}, timeout_s=60, retries=1),
        AgentStep(
            id="s2",
            kind="agent",
            instruction="${s1.text}",
            depends_on=("s1",),
            tools=(AllowedTool(server="files", tool="read"),),
        ),
    ),
    limits=Limits(budget=Budget(tool_calls=5), max_steps=7),
    policy={"files/read": PinnedPolicy(effect=Effect.READ, idempotent=True, approval="plan")},
    pins={"files/read": "sha256:aa"},
)
RESULT = StoredResult(text="t", output={"a": [1, 2.5, None, 2**60]}, size=9, digest="sha256:bb")

GOLDEN: dict[str, tuple[ev.Event, str]] = {
    "task.submitted": (
        ev.TaskSubmitted(prompt="p", tools=("files",), metadata={"k": "v"}, request_key="rk", request_digest="rd"),
        (
            '{"prompt":"p","approval":"manual","tools":["files"],"limits":{"budget":{"tool_calls":null,"seconds":null,'
            '"tokens":null},"max_steps":20},"metadata":{"k":"v"},"actor":"anonymous","request_key":"rk",'
            '"request_digest":"rd"}'
        ),
    ),
    "task.claimed": (ev.TaskClaimed(runner="local", epoch=1), '{"runner":"local","epoch":1}'),
    "plan.proposed": (
        ev.PlanProposed(
            revision=1,
            digest=CONTRACT.digest,
            contract=CONTRACT,
            definitions={"files/read": ToolDefinition(name="read", inputSchema={"type": "object"})},
            planner="rules",
        ),
        '{"revision":1,"digest":"' + "DIGEST" + '",'
        '"contract":{"goal":"g","steps":[{"id":"s1","title":"","depends_on":[],"when":null,"kind":"tool","server":"files",'
        '"tool":"read","arguments":{"path":"é"},"timeout_s":60.0,"retries":1,"preapproved":false},'
        '{"id":"s2","title":"",'
        '"depends_on":["s1"],"when":null,"kind":"agent","instruction":"${s1.text}","tools":[{"server":"files","tool":"read",'
        '"max_calls":1,"timeout_s":null}],"max_turns":10,"preapproved":false}],"limits":{"budget":{"tool_calls":5,"seconds":null,"tokens":null},'
        '"max_steps":7},"policy":{"files/read":{"effect":"read","idempotent":true,"approval":"plan"}},'
        '"pins":{"files/read":"sha256:aa"},"asks":{}},"definitions":{"files/read":{"name":"read","title":null,'
        '"description":null,"inputSchema":{"type":"object"},"outputSchema":null,"annotations":null}},'
        '"planner":"rules"}',
    ),
    "plan.approved": (
        ev.PlanApproved(revision=1, digest="d", actor="ann", comment="ok"),
        '{"revision":1,"digest":"d","actor":"ann","comment":"ok"}',
    ),
    "plan.rejected": (
        ev.PlanRejected(revision=1, digest="d"),
        '{"revision":1,"digest":"d","actor":"anonymous","reason":null}',
    ),
    "plan.revision_requested": (
        ev.PlanRevisionRequested(feedback="f", revision=1, digest="d", actor="ann"),
        '{"feedback":"f","revision":1,"digest":"d","actor":"ann"}',
    ),
    "plan.revision_failed": (
        ev.PlanRevisionFailed(revision=1, digest="d", code="c", message="m"),
        '{"revision":1,"digest":"d","code":"c","message":"m"}',
    ),
    "plan.edited": (
        ev.PlanEdited(
            revision=2,
            digest="d",
            contract=Contract(
                goal="g",
                steps=(ToolStep(id="s1", kind="tool", server="files", tool="read"),),
                limits=Limits(),
                policy={},
                pins={},
            ),
            definitions={"files/read": ToolDefinition(name="read", inputSchema={"type": "object"})},
            actor="ann",
        ),
        (
            '{"revision":2,"digest":"d","contract":{"goal":"g","steps":[{"id":"s1","title":"","depends_on":[],'
            '"when":null,"kind":"tool","server":"files","tool":"read","arguments":{},"timeout_s":null,"retries":0,'
            '"preapproved":false}],'
            '"limits":{"budget":{"tool_calls":null,"seconds":null,"tokens":null},"max_steps":20},'
            '"policy":{},"pins":{},"asks":{}},'
            '"definitions":{"files/read":{"name":"read","title":null,"description":null,'
            '"inputSchema":{"type":"object"},"outputSchema":null,"annotations":null}},"actor":"ann"}'
        ),
    ),
    "plan.repinned": (
        ev.PlanRepinned(
            revision=2,
            digest="d",
            contract=Contract(
                form=2,
                goal="g",
                steps=(AgentStep(id="s1", kind="agent", instruction="i"),),
                limits=Limits(),
                policy={
                    "files/read": PinnedPolicy(
                        effect=Effect.READ,
                        idempotent=True,
                        open_world=False,
                        approval="plan",
                        vouched=False,
                        timeout_s=60,
                    )
                },
                pins={"files/read": "sha256:aa"},
                servers={"files": "sha256:cc"},
                model=PinnedModel(entry="openai", endpoints=("http://localhost:1/v1",), model="m"),
            ),
            definitions={"files/read": ToolDefinition(name="read", inputSchema={"type": "object"})},
            identities={"files": {"type": "local_stdio", "cwd": "/srv"}},
            differences=('files: cwd was "/a" and is "/srv".',),
        ),
        (
            '{"revision":2,"digest":"d","contract":{"form":2,"goal":"g","steps":[{"id":"s1","title":"","depends_on":[],'
            '"when":null,"kind":"agent","instruction":"i","tools":[],"max_turns":10,"preapproved":false}],'
            '"limits":{"budget":{"tool_calls":null,"seconds":null,"tokens":null},"max_steps":20},'
            '"policy":{"files/read":{"effect":"read","idempotent":true,"open_world":false,"approval":"plan",'
            '"vouched":false,"timeout_s":60.0}},"pins":{"files/read":"sha256:aa"},"servers":{"files":"sha256:cc"},'
            '"model":{"entry":"openai","endpoints":["http://localhost:1/v1"],"model":"m"},"asks":{}},'
            '"definitions":{"files/read":{"name":"read","title":null,"description":null,'
            '"inputSchema":{"type":"object"},"outputSchema":null,"annotations":null}},'
            '"identities":{"files":{"type":"local_stdio","cwd":"/srv"}},'
            '"differences":["files: cwd was \\"/a\\" and is \\"/srv\\"."]}'
        ),
    ),
    "task.waiting": (
        ev.TaskWaiting(
            kind="server",
            name="files",
            reason="r",
            attempt=2,
            next_try_at=AT,
            gives_up_at=AT + timedelta(hours=1),
        ),
        (
            '{"kind":"server","name":"files","reason":"r","attempt":2,"next_try_at":"2026-11-21T04:00:00Z",'
            '"gives_up_at":"2026-11-21T05:00:00Z"}'
        ),
    ),
    "step.started": (ev.StepStarted(step_id="s1", title="t"), '{"step_id":"s1","title":"t"}'),
    "model.answered": (
        ev.ModelAnswered(
            step_id="s1",
            turn=1,
            items=({"type": "function_call"},),
            calls=(ev.ModelCall(call_id="m", name="files__read", arguments='{"a": 1}'),),
            usage=Usage(input_tokens=3, output_tokens=2),
            duration_ms=1.5,
        ),
        (
            '{"step_id":"s1","turn":1,"items":[{"type":"function_call"}],'
            '"calls":[{"call_id":"m","name":"files__read","arguments":"{\\"a\\": 1}"}],"answer":null,'
            '"usage":{"input_tokens":3,"output_tokens":2},"duration_ms":1.5}'
        ),
    ),
    "tool.called": (
        ev.ToolCalled(
            step_id="s1",
            call_id="c",
            server="files",
            tool="read",
            arguments={"a": 1},
            arguments_digest="d",
            attempt=1,
            timeout_s=60,
        ),
        (
            '{"step_id":"s1","call_id":"c","server":"files","tool":"read","arguments":{"a":1},"arguments_digest":"d",'
            '"attempt":1,"timeout_s":60.0}'
        ),
    ),
    "tool.returned": (
        ev.ToolReturned(step_id="s1", call_id="c", result=RESULT, duration_ms=1.5),
        (
            '{"step_id":"s1","call_id":"c","result":{"text":"t","output":{"a":[1,2.5,null,1152921504606846976]},'
            '"is_error":false,"cut":false,"binary":false,"size":9,"digest":"sha256:bb"},"duration_ms":1.5}'
        ),
    ),
    "tool.denied": (
        ev.ToolDenied(step_id="s1", server="files", tool="rm", rule="r", message="m"),
        '{"step_id":"s1","server":"files","tool":"rm","rule":"r","message":"m"}',
    ),
    "call.approval_requested": (
        ev.CallApprovalRequested(
            step_id="s1",
            call_id="c",
            server="files",
            tool="write",
            arguments={"a": 1},
            arguments_digest="d",
            reason="r",
        ),
        (
            '{"step_id":"s1","call_id":"c","server":"files","tool":"write","arguments":{"a":1},"arguments_digest":"d",'
            '"reason":"r"}'
        ),
    ),
    "call.approved": (
        ev.CallApproved(
            step_id="s1", call_id="c", arguments_digest="d", actor="ann", comment="ok", scopes=("approve",)
        ),
        '{"step_id":"s1","call_id":"c","arguments_digest":"d","actor":"ann","comment":"ok","scopes":["approve"]}',
    ),
    "call.denied": (
        ev.CallDenied(step_id="s1", call_id="c", arguments_digest="d"),
        '{"step_id":"s1","call_id":"c","arguments_digest":"d","actor":"anonymous","comment":null}',
    ),
    "input.requested": (
        ev.InputRequested(
            step_id="s1",
            call_id="c",
            question_id="q",
            server="files",
            tool="write",
            message="m",
            requested_schema={"type": "object", "properties": {}},
        ),
        (
            '{"step_id":"s1","call_id":"c","question_id":"q","server":"files","tool":"write","message":"m",'
            '"requested_schema":{"type":"object","properties":{}}}'
        ),
    ),
    "input.answered": (
        ev.InputAnswered(step_id="s1", question_id="q", action="accept", content={"a": 1}, actor="ann"),
        '{"step_id":"s1","question_id":"q","action":"accept","content":{"a":1},"actor":"ann"}',
    ),
    "input.withdrawn": (
        ev.InputWithdrawn(step_id="s1", question_id="q", reason="r"),
        '{"step_id":"s1","question_id":"q","reason":"r"}',
    ),
    "step.completed": (ev.StepCompleted(step_id="s1"), '{"step_id":"s1"}'),
    "step.failed": (
        ev.StepFailed(step_id="s1", code="tool_error", message="m"),
        '{"step_id":"s1","code":"tool_error","message":"m"}',
    ),
    "step.skipped": (ev.StepSkipped(step_id="s1", reason="r"), '{"step_id":"s1","reason":"r"}'),
    "step.outcome_unknown": (
        ev.StepOutcomeUnknown(step_id="s1", call_id="c", reason="r"),
        '{"step_id":"s1","call_id":"c","reason":"r"}',
    ),
    "step.resolved": (
        ev.StepResolved(step_id="s1", call_id="c", resolution="done", output=[1]),
        '{"step_id":"s1","call_id":"c","resolution":"done","output":[1],"actor":"anonymous","comment":null}',
    ),
    "budget.exceeded": (
        ev.BudgetExceeded(budget="tool_calls", limit=5, used=5),
        '{"budget":"tool_calls","limit":5.0,"used":5.0}',
    ),
    "task.cancel_requested": (ev.TaskCancelRequested(reason="r"), '{"actor":"anonymous","reason":"r"}'),
    "task.completed": (ev.TaskCompleted(result="r"), '{"result":"r"}'),
    "task.failed": (
        ev.TaskFailed(code="step_failed", message="m", step_id="s1"),
        '{"code":"step_failed","message":"m","step_id":"s1"}',
    ),
    "task.cancelled": (ev.TaskCancelled(unknown_steps=("s1",)), '{"unknown_steps":["s1"]}'),
    "task.expired": (ev.TaskExpired(revision=2, digest="d"), '{"revision":2,"digest":"d"}'),
}


def golden_json(kind: str) -> str:
    digest = "sha256:247be1a4d1505618303acdc4c6d3bdfb22d88e6074e31888ff7a54eabb76b6bf"
    return GOLDEN[kind][1].replace("DIGEST", digest)


def test_every_event_type_has_its_place_in_the_journal() -> None:
    assert list(GOLDEN) == list(ev.EVENTS)
    assert {type(event).__name__ for event, _ in GOLDEN.values()} == {
        kind.__name__ for kind in ev.Event.__subclasses__()
    }


OPEN = "pending awaiting_approval approved executing needs_attention"
RULES = {
    "task.submitted": ("", "anyone", False),
    "task.claimed": (OPEN, "anyone", False),
    "plan.proposed": ("pending", "anyone", False),
    "plan.approved": ("awaiting_approval", "anyone", False),
    "plan.rejected": ("awaiting_approval", "anyone", True),
    "plan.revision_requested": ("awaiting_approval", "anyone", False),
    "plan.revision_failed": ("pending", "run", False),
    "plan.edited": ("awaiting_approval", "anyone", False),
    "plan.repinned": ("awaiting_approval executing", "anyone", False),
    "task.waiting": ("pending executing", "run", False),
    "step.started": ("executing", "run", False),
    "model.answered": (OPEN, "run", False),
    "tool.called": ("executing", "run", False),
    "tool.returned": (OPEN, "run", False),
    "tool.denied": ("executing", "run", False),
    "call.approval_requested": ("executing needs_attention", "run", False),
    "call.approved": ("needs_attention", "anyone", False),
    "call.denied": ("needs_attention", "anyone", False),
    "input.requested": ("executing needs_attention", "run", False),
    "input.answered": ("needs_attention", "anyone", False),
    "input.withdrawn": ("needs_attention", "run", False),
    "step.completed": ("executing", "run", False),
    "step.failed": ("executing", "run", False),
    "step.skipped": ("executing", "run", False),
    "step.outcome_unknown": ("approved executing needs_attention", "run", False),
    "step.resolved": ("needs_attention", "anyone", False),
    "budget.exceeded": ("executing", "run", False),
    "task.cancel_requested": (OPEN, "anyone", False),
    "task.completed": ("executing", "run", True),
    "task.failed": ("pending awaiting_approval executing", "run", True),
    "task.cancelled": (OPEN, "anyone", True),
    "task.expired": ("awaiting_approval", "anyone", True),
}
"""The whole table once more, by itself: after which statuses an event may come, who may write it, whether it ends."""


def test_every_event_says_when_it_may_come_who_may_write_it_and_whether_it_ends_the_task() -> None:
    said = {kind.type: (set(kind.follows), kind.writer, kind.ends_task) for kind in ev.EVENTS.values()}
    assert said == {name: (set(map(TaskStatus, text.split())), *rest) for name, (text, *rest) in RULES.items()}


@pytest.mark.parametrize("kind", GOLDEN)
def test_an_event_is_written_in_the_form_that_it_always_had(kind: str) -> None:
    event, _ = GOLDEN[kind]
    written = ev.make_record("t", 7, 1, AT, event)
    assert written.data == golden_json(kind)
    assert written.type == event.type == kind


SIGNED = (
    "task.submitted",
    "plan.approved",
    "plan.rejected",
    "plan.revision_requested",
    "plan.edited",
    "call.approved",
    "call.denied",
    "input.answered",
    "step.resolved",
    "task.cancel_requested",
)


def test_what_a_caller_causes_names_the_callers_tenant_and_how_the_caller_was_authenticated() -> None:
    assert tuple(kind for kind, event in GOLDEN.items() if issubclass(type(event[0]), SignedEvent)) == SIGNED
    for kind in SIGNED:
        signature = Caller("ann", "acme", frozenset(), "key").signature
        written = ev.make_record("t", 1, 1, AT, GOLDEN[kind][0].model_copy(update=dict(signature)))
        assert json.loads(written.data) == {**json.loads(golden_json(kind)), **signature}
        assert ev.restore_record("t", 1, 1, AT, kind, written.data) == written


@pytest.mark.parametrize("kind", GOLDEN)
def test_an_event_that_was_written_is_read_back(kind: str) -> None:
    event, _ = GOLDEN[kind]
    found = ev.restore_record("t", 7, 1, AT, kind, golden_json(kind))
    assert found == ev.make_record("t", 7, 1, AT, event)
    assert (found.task_id, found.seq, found.epoch, found.at) == ("t", 7, 1, AT)


TIMES = {"next_try_at": "2026-11-21T04:00:00Z", "gives_up_at": "2026-11-21T05:00:00Z"}


def test_the_least_that_an_event_ever_held_stays_readable() -> None:
    """Fields that are not in these records were added later and must be optional."""
    tool = {"server": "f", "tool": "t"}
    steps = [{"id": "s", "kind": "tool", **tool}, {"id": "a", "kind": "agent", "instruction": "i", "tools": [tool]}]
    policy = {"f/t": {"effect": "read", "idempotent": True, "approval": "plan"}}
    contract = {"goal": "g", "steps": steps, "limits": {"budget": {}}, "policy": policy, "pins": {"f/t": "p"}}
    plan = {"revision": 1, "digest": "d"}
    made = {**plan, "contract": contract, "definitions": {"f/t": {"name": "t"}}}
    call = {"step_id": "s", "call_id": "c"}
    sent = {**call, **tool, "arguments": {}, "arguments_digest": "d"}
    wanted = [{"call_id": "c", "name": "n", "arguments": "{}"}]
    least: dict[str, dict[str, Any]] = {
        "task.submitted": {"prompt": "p"},
        "task.claimed": {"runner": "r", "epoch": 1},
        "plan.proposed": {**made, "planner": "rules"},
        "plan.approved": plan,
        "plan.rejected": plan,
        "plan.revision_requested": {**plan, "feedback": "f"},
        "plan.revision_failed": {**plan, "code": "c", "message": "m"},
        "plan.edited": made,
        "plan.repinned": made,
        "task.waiting": {"kind": "server", "name": "f", "reason": "r", "attempt": 1, **TIMES},
        "step.started": {"step_id": "s", "title": "t"},
        "model.answered": {"step_id": "s", "turn": 1, "items": [], "calls": wanted},
        "tool.called": {**sent, "attempt": 1},
        "tool.returned": {**call, "result": {}, "duration_ms": 1},
        "tool.denied": {"step_id": "s", **tool, "rule": "r", "message": "m"},
        "call.approval_requested": {**sent, "reason": "r"},
        "call.approved": {**call, "arguments_digest": "d"},
        "call.denied": {**call, "arguments_digest": "d"},
        "input.requested": {**call, **tool, "question_id": "q", "message": "m", "requested_schema": {}},
        "input.answered": {"step_id": "s", "question_id": "q", "action": "decline"},
        "input.withdrawn": {"step_id": "s", "question_id": "q", "reason": "r"},
        "step.completed": {"step_id": "s"},
        "step.failed": {"step_id": "s", "code": "c", "message": "m"},
        "step.skipped": {"step_id": "s", "reason": "r"},
        "step.outcome_unknown": {**call, "reason": "r"},
        "step.resolved": {**call, "resolution": "skip"},
        "budget.exceeded": {"budget": "seconds", "limit": 1, "used": 2},
        "task.cancel_requested": {},
        "task.completed": {"result": "r"},
        "task.failed": {"code": "c", "message": "m"},
        "task.cancelled": {},
        "task.expired": plan,
    }
    assert least.keys() == ev.EVENTS.keys()
    for kind, data in least.items():
        assert ev.restore_record("t", 1, None, AT, kind, json.dumps(data)).type == kind


OF_A_MODEL = {"turn": 1, "index": 0}
SPENT = {"usage": {"input_tokens": 3, "output_tokens": 2}}
FACTS = {"identities": {"files": {"type": "local_stdio", "cwd": "/srv"}}}
SIGNATURE = {"tenant": "acme", "via": "key"}
AGAIN = {
    "task_id": "task_1",
    "head": "sha256:aa",
    "start": "failed_step",
    "results": {"s1": {"step": "sha256:bb", "result": json.loads(RESULT.model_dump_json()), "open_world": True}},
    "calls": [{"step_id": "s2", "server": "files", "tool": "write", "count": 2, "unknown": True}],
    "authors": ["ann"],
}
LEFT_OUT: dict[str, dict[str, Any]] = {
    "task.submitted": {"rerun": AGAIN, "thread": "c"},
    "plan.proposed": {**FACTS, **SPENT},
    "plan.approved": {"scopes": ["approve"], "names_digest": False},
    "plan.revision_failed": SPENT,
    "plan.edited": FACTS,
    "plan.repinned": FACTS,
    "task.waiting": {"exit_mark": "1: no", **SPENT},
    "model.answered": {"answer": None, "objection": "call_as_text"},
    "step.completed": {"note": "Nothing was called."},
    "tool.called": OF_A_MODEL,
    "tool.denied": OF_A_MODEL,
    "call.approval_requested": OF_A_MODEL,
    "call.approved": {
        "scopes": ["approve", "submit"],
        "edited_arguments": {"a": 1},
        "edited_digest": "sha256:cc",
    },
    "step.failed": {**SPENT, "duration_ms": 1.5},
    "task.failed": SPENT,
}
"""What an event says only where there is something to say."""


@pytest.mark.parametrize("kind", GOLDEN)
def test_whatever_an_event_can_say_is_read_and_written_again(kind: str) -> None:
    said = json.loads(golden_json(kind)) | LEFT_OUT.get(kind, {}) | (SIGNATURE if kind in SIGNED else {})
    assert said.keys() == ev.EVENTS[kind].model_fields.keys()
    event = ev.restore_record("t", 7, 1, AT, kind, json.dumps(said)).event
    assert json.loads(ev.make_record("t", 7, 1, AT, event).data) == said


def test_what_a_model_had_to_do_with_an_event_is_in_it_only_where_it_had() -> None:
    usage = Usage(input_tokens=3, output_tokens=2)
    failed = ev.StepFailed(step_id="s1", code="model_failed", message="m", usage=usage)
    denied = ev.ToolDenied(step_id="s1", server="files", tool="rm", rule="r", message="m", turn=1, index=0)
    for event in (failed, denied):
        written = ev.make_record("t", 7, 1, AT, event)
        assert ev.restore_record("t", 7, 1, AT, event.type, written.data).event == event
    assert '"usage":{"input_tokens":3,"output_tokens":2}' in ev.make_record("t", 7, 1, AT, failed).data
    assert '"turn":1,"index":0' in ev.make_record("t", 7, 1, AT, denied).data


def test_an_approval_says_where_it_named_no_digest() -> None:
    unnamed = ev.make_record("t", 7, None, AT, ev.PlanApproved(revision=1, digest="d", names_digest=False))
    assert unnamed.data == '{"revision":1,"digest":"d","actor":"anonymous","comment":null,"names_digest":false}'
    assert ev.restore_record("t", 7, None, AT, "plan.approved", unnamed.data).event == unnamed.event


def test_a_journal_of_a_later_version_is_not_misread() -> None:
    with pytest.raises(KeyError, match=r"plan\.dreamt"):
        ev.restore_record("t", 1, None, AT, "plan.dreamt", "{}")
    with pytest.raises(ValidationError, match="colour"):
        ev.restore_record("t", 1, None, AT, "step.completed", '{"step_id":"s1","colour":"red"}')
