"""Agent steps in the journal: the folds of their events, the refused events, and the commands that follow."""

from dataclasses import replace
from typing import Any

import pytest

from agent_runtime.domain import events as ev
from agent_runtime.domain.budget import has_budget, may_ask_model, seconds_left, tokens_left
from agent_runtime.domain.commands import NOTHING_CALLED, AskModel, CallTool, Command, WriteEvents, next_commands
from agent_runtime.domain.contract import Budget, Contract
from agent_runtime.domain.conversation import conversation
from agent_runtime.domain.errors import IllegalTransitionError
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.usage import Usage
from agent_runtime.domain.values import digest
from agent_steps import (
    AGENT,
    LAST,
    LOOK,
    after,
    contract_of,
    make_executing_task,
    make_task_after_look,
    model_answered,
    step_started,
    tool_called,
    tool_returned,
)

READ = ("f__read", {"x": 1})
WRITE = ("f__write", {"x": 2})
ALONE = {**AGENT, "instruction": "Do it."}


def task_with_running_agent(budget: Budget | None = None, **more: Any) -> Task:
    """Return a task whose agent step `do` runs, before the first answer of its model."""
    return after(make_executing_task(contract_of({**ALONE, **more}, budget=budget)), step_started("do"))


def task_with_question(task: Task) -> Task:
    """Return the task after the model proposed to write and a person was asked."""
    question = ev.CallApprovalRequested(
        **tool_called("do", "write", {"x": 2}, turn=1, index=0).model_dump(exclude={"attempt", "timeout_s"}),
        reason="why",
    )
    return after(task, model_answered(1, WRITE, READ), question)


def about(kind: type[ev.CallApproved | ev.CallDenied]) -> ev.CallApproved | ev.CallDenied:
    return kind(step_id="do", call_id="c", arguments_digest=digest({"x": 2}), comment="so it is")


def in_doubt() -> Task:
    """Return a task in which the first of two calls was sent and its outcome is unknown."""
    lost = ev.StepOutcomeUnknown(step_id="do", call_id="c", reason="lost")
    return after(
        task_with_running_agent(),
        model_answered(1, READ, READ),
        tool_called("do", "read", {"x": 1}, turn=1, index=0),
        lost,
    )


def task_after_resolution(how: ev.Resolution, output: Any = None) -> Task:
    word = ev.StepResolved(step_id="do", call_id="c", resolution=how, output=output)
    return after(in_doubt(), word, ev.TaskClaimed(runner="r", epoch=3))


def only(task: Task, *in_flight: str) -> Command | None:
    commands = next_commands(task, frozenset(in_flight))
    assert len(commands) <= 1
    return commands[0] if commands else None


def next_events(task: Task) -> tuple[ev.Event, ...]:
    command = only(task)
    assert isinstance(command, WriteEvents)
    return command.events


def the_agent(task: Task) -> AgentStep:
    step = task.plan_step("do")
    assert isinstance(step, AgentStep)
    return step


def test_an_answer_is_kept_with_what_it_cost() -> None:
    task = after(task_with_running_agent(), model_answered(1, READ, WRITE).model_copy(update={"duration_ms": 1500.0}))
    state = task.steps["do"]
    assert [call.name for call in state.turns[0].calls] == ["f__read", "f__write"]
    assert (state.pending.turn, state.pending.index) == (1, 0) if state.pending else False
    assert (task.usage, task.call_seconds, task.tool_calls) == (Usage(10, 5), 1.5, 0)


@pytest.mark.parametrize(
    ("events", "wrong", "words"),
    [
        ((), model_answered(2), "turn 2 may not follow turn 0 of 10"),
        (
            (),
            model_answered(1).model_copy(update={"answer": None}),
            "a turn holds calls, or the answer that ends the step",
        ),
        ((model_answered(1),), model_answered(2), "a turn holds calls, or the answer that ends the step"),
        ((model_answered(1, READ),), model_answered(2), "step 'do' does not wait for a model"),
        ((model_answered(1, READ),), model_answered(1), "step 'do' does not wait for a model"),
        ((), model_answered(1, READ).model_copy(update={"answer": StoredResult(text="x")}), "calls, or the answer"),
        ((), tool_called("do", "read", {"x": 1}, turn=1, index=0), "the model of step 'do' asks for no such call now"),
        ((model_answered(1, READ),), tool_called("do", "read", {"x": 1}), "asks for no such call now"),
        ((model_answered(1, READ),), tool_called("do", "read", {"x": 1}, turn=1, index=1), "asks for no such call now"),
        (
            (model_answered(1, READ),),
            tool_called("do", "write", {"x": 1}, turn=1, index=0),
            "'f/write' is not what the model",
        ),
        (
            (model_answered(1, READ),),
            tool_called("do", "read", {"x": 2}, turn=1, index=0),
            "not those that the model gave",
        ),
        (
            (model_answered(1, READ),),
            tool_called("do", "read", {"x": True}, turn=1, index=0),
            "not those that the model gave",
        ),
        (
            (model_answered(1, ("f__read", {"x": 2**60})),),
            tool_called("do", "read", {"x": 2**60 + 1}, turn=1, index=0),
            "not those that the model gave",
        ),
        (
            (model_answered(1, ("f__read", "[1]")),),
            tool_called("do", "read", {}, turn=1, index=0),
            "must be a JSON object",
        ),
        (
            (model_answered(1, WRITE),),
            tool_called("do", "write", {"x": 2}, turn=1, index=0),
            "nobody has approved this concrete",
        ),
        ((model_answered(1, READ),), ev.StepCompleted(step_id="do"), "step 'do' has no successful result"),
        ((), ev.StepCompleted(step_id="do"), "step 'do' has no successful result"),
    ],
)
def test_what_may_not_follow_is_refused(events: tuple[ev.Event, ...], wrong: ev.Event, words: str) -> None:
    task = after(task_with_running_agent(), *events)
    with pytest.raises(IllegalTransitionError, match=words):
        after(task, wrong)


def test_a_turn_beyond_the_last_is_refused() -> None:
    refused = ev.ToolDenied(step_id="do", server="", tool="rm", rule="not_in_plan", message="No.", turn=1, index=0)
    task = after(task_with_running_agent(max_turns=1), model_answered(1, ("rm", {})), refused)
    with pytest.raises(IllegalTransitionError, match="turn 2 may not follow turn 1 of 1"):
        after(task, model_answered(2))


def test_a_tool_is_called_no_more_often_than_it_may_be() -> None:
    task = after(task_with_running_agent(), model_answered(1, READ, READ, READ))
    for index in (0, 1):
        task = after(
            task,
            tool_called("do", "read", {"x": 1}, f"c{index}", turn=1, index=index),
            tool_returned("do", f"c{index}"),
        )
    assert task.steps["do"].sent == ("f/read", "f/read")
    with pytest.raises(IllegalTransitionError, match="'f/read' may not be called more often"):
        after(task, tool_called("do", "read", {"x": 1}, "c2", turn=1, index=2))


def test_a_result_is_what_the_model_gets_and_the_next_call_is_next() -> None:
    call = tool_called("do", "read", {"x": 1}, turn=1, index=0)
    state = after(task_with_running_agent(), model_answered(1, READ, READ), call, tool_returned("do")).steps["do"]
    assert state.call is None
    assert [reply.text for reply in state.turns[0].replies] == ["fine"]
    assert state.pending
    assert state.pending.index == 1


def test_a_repetition_is_no_further_use() -> None:
    call = tool_called("do", "read", {"x": 1}, turn=1, index=0)
    task = after(
        task_with_running_agent(),
        model_answered(1, READ),
        call,
        call.model_copy(update={"attempt": 2, "call_id": "c2"}),
    )
    assert (task.steps["do"].sent, task.tool_calls) == (("f/read",), 2)


def test_a_refusal_is_what_the_model_gets() -> None:
    refusal = ev.ToolDenied(step_id="do", server="", tool="rm", rule="not_in_plan", message="No.", turn=1, index=0)
    task = after(task_with_running_agent(), model_answered(1, ("rm", {}), READ), refusal)
    reply = task.steps["do"].turns[0].replies[0]
    assert (reply.text, reply.is_error) == ("This call was refused (not_in_plan) and not made: No.", True)
    assert only(task) == CallTool(the_agent(task))
    with pytest.raises(IllegalTransitionError, match="asks for no such call now"):
        after(task, refusal)


def test_a_refusal_that_answers_no_model_changes_nothing() -> None:
    task = after(task_with_running_agent(), model_answered(1, READ))
    refusal = ev.ToolDenied(step_id="do", server="f", tool="wipe", rule="not_in_plan", message="No.")
    assert after(task, refusal).steps == task.steps


def test_a_denied_call_tells_the_model_and_goes_on() -> None:
    task = after(task_with_question(task_with_running_agent()), about(ev.CallDenied))
    assert (task.status, task.steps["do"].decided) == (TaskStatus.APPROVED, ("c",))
    task = after(task, ev.TaskClaimed(runner="r", epoch=3))
    state = task.steps["do"]
    assert (state.status, state.asked) == (StepStatus.RUNNING, None)
    assert [(reply.text, reply.is_error) for reply in state.turns[0].replies] == [
        ("anonymous denied the call: so it is", True)
    ]
    assert only(task) == CallTool(the_agent(task))


def test_an_approved_call_is_made_as_it_was_shown() -> None:
    task = after(
        task_with_question(task_with_running_agent()), about(ev.CallApproved), ev.TaskClaimed(runner="r", epoch=3)
    )
    assert only(task) == CallTool(the_agent(task))
    task = after(task, tool_called("do", "write", {"x": 2}, turn=1, index=0), tool_returned("do"))
    assert (task.steps["do"].asked, task.steps["do"].sent) == (None, ("f/write",))


def test_what_policy_had_approved_with_a_plan_of_an_earlier_version_stays_in_its_journal() -> None:
    fields = dict(contract_of({**ALONE, "preapproved": True}))
    old, new = (Contract.model_validate({**fields, "form": form}) for form in (1, 2))
    wanted = [step_started("do"), model_answered(1, WRITE), tool_called("do", "write", {"x": 2}, turn=1, index=0)]
    assert after(make_executing_task(old, ev.POLICY), *wanted).steps["do"].open_call
    with pytest.raises(IllegalTransitionError, match="nobody has approved this concrete call"):
        after(make_executing_task(new, ev.POLICY), *wanted)


def test_a_call_of_unknown_outcome_that_was_done_is_answered_by_the_person() -> None:
    task = task_after_resolution("done", {"n": 7})
    assert (task.steps["do"].status, task.steps["do"].message) == (StepStatus.RUNNING, None)
    assert [reply.output for reply in task.steps["do"].turns[0].replies] == [{"n": 7}]
    assert task.steps["do"].sent == ("f/read",)


def test_a_call_that_is_to_be_retried_is_asked_for_anew_and_is_no_further_use() -> None:
    task = task_after_resolution("retry")
    state = task.steps["do"]
    assert (state.status, state.call, state.sent, state.turns[0].replies) == (StepStatus.RUNNING, None, (), ())
    assert only(task) == CallTool(the_agent(task))


@pytest.mark.parametrize(("how", "status"), [("skip", StepStatus.SKIPPED), ("fail", StepStatus.FAILED)])
def test_a_step_is_given_up_with_its_call(how: ev.Resolution, status: StepStatus) -> None:
    task = task_after_resolution(how)
    assert task.steps["do"].status is status
    assert [event.type for event in next_events(task)] == ["task.completed" if how == "skip" else "task.failed"]


def test_a_model_is_asked_then_called_for_then_asked_again_until_it_has_said_its_last() -> None:
    task = make_executing_task(contract_of(ALONE))
    agent = the_agent(task)
    assert only(task) == AskModel(agent)
    task = after(task, step_started("do"))
    assert only(task) == AskModel(agent)
    task = after(task, model_answered(1, READ))
    assert only(task) == CallTool(agent)
    task = after(task, tool_called("do", "read", {"x": 1}, turn=1, index=0))
    assert only(task, "do") is None
    assert only(task) == CallTool(agent)
    task = after(task, tool_returned("do"))
    assert only(task) == AskModel(agent)
    task = after(task, model_answered(2, text="all done"))
    assert next_events(task) == (ev.StepCompleted(step_id="do"),)
    task = after(task, *next_events(task))
    assert task.results["do"].text == "all done"
    assert next_events(task) == (ev.TaskCompleted(result="all done"),)


def test_a_model_that_wants_more_turns_than_it_has_fails_the_step() -> None:
    call = tool_called("do", "read", {"x": 1}, turn=1, index=0)
    failed = next_events(
        after(task_with_running_agent(max_turns=1), model_answered(1, READ), call, tool_returned("do"))
    )[0]
    assert isinstance(failed, ev.StepFailed)
    assert failed.code == "max_turns"
    assert failed.message == ("The model was asked 1 times, as often as the step allows (max_turns), and wants more.")


def test_the_step_after_waits_for_the_agent() -> None:
    task = make_task_after_look(contract_of(LOOK, AGENT, LAST))
    assert only(task) == AskModel(the_agent(task))


def find_exceeded_budget(task: Task) -> ev.BudgetExceeded:
    over, failed = next_events(task)
    assert isinstance(over, ev.BudgetExceeded)
    assert isinstance(failed, ev.TaskFailed)
    assert (failed.code, failed.step_id) == ("budget_exceeded", "do")
    after(task, over, failed)
    return over


def test_a_budget_of_calls_that_is_used_up_ends_the_task_at_the_next_call() -> None:
    task = after(task_with_running_agent(Budget(tool_calls=1)), model_answered(1, READ, READ))
    task = after(task, tool_called("do", "read", {"x": 1}, turn=1, index=0), tool_returned("do"))
    assert find_exceeded_budget(task) == ev.BudgetExceeded(budget="tool_calls", limit=1, used=1)


def test_a_budget_of_seconds_covers_the_time_of_the_model() -> None:
    slow = model_answered(1, READ).model_copy(update={"duration_ms": 2000.0})
    assert find_exceeded_budget(after(task_with_running_agent(Budget(seconds=1.5)), slow)) == ev.BudgetExceeded(
        budget="seconds", limit=1.5, used=2
    )


def test_a_budget_of_tokens_ends_the_task_before_the_next_question_and_not_before_a_call() -> None:
    task = after(task_with_running_agent(Budget(tokens=15)), model_answered(1, READ))
    assert tokens_left(task) == 0
    assert only(task) == CallTool(the_agent(task))
    task = after(task, tool_called("do", "read", {"x": 1}, turn=1, index=0), tool_returned("do"))
    assert find_exceeded_budget(task) == ev.BudgetExceeded(budget="tokens", limit=15, used=15)


def test_a_task_does_not_end_for_want_of_budget_while_a_call_is_open() -> None:
    write = {"id": "write", "kind": "tool", "server": "f", "tool": "write", "arguments": {"x": 1}}
    task = make_executing_task(contract_of(ALONE, write, budget=Budget(tool_calls=1)))
    task = after(task, step_started("do"), step_started("write"), tool_called("write", "write", {"x": 1}))
    task = after(task, ev.TaskClaimed(runner="r", epoch=3))
    first = next_commands(task)[0]
    assert isinstance(first, WriteEvents)
    assert [event.type for event in first.events] == ["step.outcome_unknown"]
    assert after(task, *first.events).status is TaskStatus.NEEDS_ATTENTION


def test_a_question_under_way_reserves_all_tokens_and_all_seconds() -> None:
    other = {**ALONE, "id": "other"}
    task = after(
        make_executing_task(contract_of(ALONE, other, budget=Budget(seconds=9, tokens=99))), step_started("do")
    )
    assert (seconds_left(task, frozenset()), seconds_left(task, {"do"})) == (9, 0)
    assert may_ask_model(task, frozenset())
    assert not may_ask_model(task, {"do"})
    assert not has_budget(task, {"do"})
    assert only(task, "do") is None


def test_without_a_budget_models_are_asked_side_by_side() -> None:
    other = {**ALONE, "id": "other"}
    task = after(make_executing_task(contract_of(ALONE, other)), step_started("do"))
    assert tokens_left(task) is None
    assert may_ask_model(task, {"do"})
    assert may_ask_model(replace(task, usage=Usage(1000, 1000)), {"do"})


def test_a_call_under_way_reserves_its_time_and_no_tokens() -> None:
    other = {**ALONE, "id": "other"}
    task = after(
        make_executing_task(contract_of(ALONE, other, budget=Budget(seconds=9, tokens=99))), step_started("do")
    )
    call = tool_called("do", "read", {"x": 1}, turn=1, index=0).model_copy(update={"timeout_s": 5.0})
    task = after(task, model_answered(1, READ), call)
    assert seconds_left(task, {"do"}) == 4
    assert may_ask_model(task, {"do"})


def object_to(turn: int, why: ev.Objection) -> ev.ModelAnswered:
    return model_answered(turn).model_copy(update={"answer": None, "objection": why})


@pytest.mark.parametrize(
    ("why", "words"),
    [("call_as_text", "You wrote a call as text, so nothing was called."), ("only_thoughts", "nothing but thoughts")],
)
def test_an_answer_that_is_no_result_is_told_to_the_model_which_is_asked_again(why: ev.Objection, words: str) -> None:
    task = after(task_with_running_agent(), object_to(1, why))
    agent = the_agent(task)
    assert only(task) == AskModel(agent)
    *_, said, told = conversation(task, agent, 1000, 1000)
    assert said == {"type": "message", "turn": 1}
    assert told["role"] == "user"
    assert words in told["content"]
    task = after(task, model_answered(2, READ), tool_called("do", "read", {"x": 1}, turn=2, index=0))
    task = after(task, tool_returned("do"), model_answered(3, text="all done"))
    assert next_events(task) == (ev.StepCompleted(step_id="do"),)


def test_a_turn_is_either_calls_or_an_answer_or_an_objection() -> None:
    task = task_with_running_agent()
    for wrong in (model_answered(1, READ), model_answered(1)):
        with pytest.raises(IllegalTransitionError, match="or an objection"):
            after(task, wrong.model_copy(update={"objection": "call_as_text"}))


def test_a_step_that_lists_tools_and_called_none_says_so() -> None:
    task = after(task_with_running_agent(), model_answered(1))
    (completed,) = next_events(task)
    assert completed == ev.StepCompleted(step_id="do", note=NOTHING_CALLED)
    assert after(task, completed).steps["do"].note == NOTHING_CALLED
    bare = after(make_executing_task(contract_of({**ALONE, "tools": []})), step_started("do"), model_answered(1))
    assert next_events(bare) == (ev.StepCompleted(step_id="do"),)
