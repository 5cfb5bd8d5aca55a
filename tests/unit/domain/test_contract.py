import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent_runtime.domain.conditions import MOST_REFERENCES
from agent_runtime.domain.contract import Budget, Contract, Limits, PinnedPolicy
from agent_runtime.domain.drafting import draw_up, find_faults
from agent_runtime.domain.errors import Fault, InvalidPlanError
from agent_runtime.domain.plan import Plan, ToolStep, find_unreferenced_steps
from agent_runtime.domain.tools import Effect
from agent_runtime.domain.values import canonical
from contracts import CATALOGUE, IDENTITY, contract, tool


def faults(*steps: dict[str, Any], max_steps: int = 20, agent_steps: bool = True) -> list[Fault]:
    plan = Plan.model_validate({"steps": steps})
    return list(find_faults(plan, Limits(max_steps=max_steps), CATALOGUE, agent_steps=agent_steps))


def test_a_sound_plan_has_no_faults() -> None:
    agent = {"id": "s2", "kind": "agent", "instruction": "${s1.text}", "tools": [{"server": "files", "tool": "read"}]}
    assert (
        faults(tool("s1", timeout_s=60, retries=3), agent, tool("s3", "write", arguments={"path": "${s2.text}"})) == []
    )


EVERY_FAULT: list[tuple[dict[str, Any], str, str]] = [
    (
        tool("a", server="nowhere"),
        "steps[0].server",
        "There is no server 'nowhere' to be used here; there are calc, files.",
    ),
    (tool("a", "erase"), "steps[0].tool", "Server 'files' has no tool 'erase'; it has ask, read, write."),
    (tool("a", arguments={}), "steps[0].arguments.path", "This is required and missing."),
    (tool("a", arguments={"path": 5}), "steps[0].arguments.path", "5 is not of type 'string'"),
    (tool("a", arguments={"path": "x", "b": 1}), "steps[0].arguments.b", "There is no such argument; there are: path."),
    (tool("a", arguments={"path": "${b.text}"}), "steps[0].arguments", "There is no step 'b' in the plan."),
    (tool("a", depends_on=["b"]), "steps[0].depends_on", "There is no step 'b' in the plan."),
    (tool("a", depends_on=["a"]), "steps", "The steps a -> a depend on each other in a circle."),
    (tool("a", arguments={"path": "${a.text}"}), "steps", "The steps a -> a depend on each other in a circle."),
    (tool("a", arguments={"path": "${a}"}), "steps[0].arguments.path", "'${a}' is not a reference: write ${STEP.text}"),
    (tool("a", timeout_s=61), "steps[0].timeout_s", "61 s is over the limit of 60 s for 'files/read'."),
    (tool("a", "write", retries=1), "steps[0].retries", "'files/write' may not be retried: the operator has not"),
    (
        tool("a", "count", "calc", arguments={"x": float("inf")}),
        "",
        "The plan holds a value that JSON cannot carry exactly",
    ),
    ({"id": "a", "kind": "agent", "instruction": "${"}, "steps[0].instruction", "'${' is not a reference"),
    ({"id": "a", "kind": "agent", "instruction": "${b.text}"}, "steps[0].instruction", "There is no step 'b'"),
    (
        {"id": "a", "kind": "agent", "instruction": "x", "tools": [{"server": "files", "tool": "erase"}]},
        "steps[0].tools[0].tool",
        "Server 'files' has no tool 'erase'",
    ),
    ({"id": "a", "kind": "agent", "instruction": "\u3164 \u200b"}, "steps[0].instruction", "The instruction is empty"),
    (tool("a", title="\u2800"), "steps[0].title", "It has no visible characters: write a title, or leave it out."),
]


@pytest.mark.parametrize(("step", "field", "message"), EVERY_FAULT)
def test_a_fault_is_named_with_its_place(step: dict[str, Any], field: str, message: str) -> None:
    (fault,) = faults(step)
    assert fault.field == field
    assert fault.message.startswith(message)


def test_a_condition_has_a_bounded_number_of_references() -> None:
    many = ["${a.text} == 'x'"] * (MOST_REFERENCES + 1)
    assert faults(tool("a"), tool("b", when=" or ".join(many[1:]))) == []
    (fault,) = faults(tool("a"), tool("b", when=" or ".join(many)))
    assert (fault.field, fault.message) == ("steps[1].when", "17 references are more than 16.")


@given(st.lists(st.sampled_from(EVERY_FAULT[:13]), min_size=2, max_size=5))
def test_every_fault_of_a_plan_is_named(chosen: list[tuple[dict[str, Any], str, str]]) -> None:
    steps = [step | {"id": f"x{index}"} for index, (step, _, _) in enumerate(chosen)]
    alone = {
        (str(fault.field).replace("steps[0]", f"steps[{index}]"), fault.message)
        for index, step in enumerate(steps)
        for fault in faults(step)
    }
    together = {(fault.field, fault.message) for fault in faults(*steps, tool("x0"), max_steps=len(steps))}
    assert together == alone | {
        (f"steps[{len(steps)}].id", "'x0' is already the id of steps[0]."),
        ("steps", f"{len(steps) + 1} steps are more than max_steps, which is {len(steps)}."),
    }


def test_every_circle_is_named() -> None:
    steps = [
        tool("a", depends_on=["b"]),
        tool("b", depends_on=["a"]),
        tool("c", arguments={"path": "${c.text}"}),
        tool("d"),
    ]
    found = [fault.message for fault in faults(*steps)]
    assert len(found) == 2
    assert "c -> c" in " ".join(found)
    assert {"a", "b"} <= set(" ".join(found).replace("The steps", "").split())


def test_an_agent_step_without_a_model_says_what_to_configure() -> None:
    (fault,) = faults({"id": "a", "kind": "agent", "instruction": "x"}, agent_steps=False)
    assert fault.field == "steps[0].kind"
    assert "openai.api_key" in fault.message


@pytest.mark.parametrize("goal", [" ", "\u3164", "\u200b\ufe0f"])
def test_a_goal_that_only_looks_empty_is_a_fault(goal: str) -> None:
    plan = Plan.model_validate({"goal": goal, "steps": [tool("a")]})
    assert [fault.field for fault in find_faults(plan, Limits(), CATALOGUE, agent_steps=True)] == ["goal"]
    assert faults(tool("a", title="")) == []


def test_without_any_server_none_is_offered() -> None:
    plan = Plan.model_validate({"steps": [tool("a")]})
    (fault,) = find_faults(plan, Limits(), {}, agent_steps=True)
    assert fault.message == "There is no server 'files' to be used here; there are none."


def test_a_plan_of_hostile_size_is_refused_before_it_is_walked() -> None:
    assert [fault.field for fault in faults(*(tool(f"s{n}", "erase") for n in range(20_000)))] == ["steps"]
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    (fault,) = faults(tool("a", arguments={"path": deep}), tool("b", "erase"))
    assert (fault.field, fault.message) == ("steps[0].arguments", "They are nested more than 64 deep.")


def test_a_plan_of_just_as_many_steps_as_are_allowed_is_judged_like_any_other() -> None:
    assert faults(tool("s1"), tool("s2"), max_steps=2) == []
    longest = [tool(f"s{n}", "erase" if n == 99 else "read") for n in range(100)]
    assert [fault.field for fault in faults(*longest, max_steps=100)] == ["steps[99].tool"]


def test_a_plan_with_faults_is_not_drawn_up() -> None:
    with pytest.raises(InvalidPlanError) as caught:
        contract(tool("a", arguments={}), tool("a"))
    assert len(caught.value.faults) == 2
    assert "steps[0].arguments.path: This is required" in str(caught.value)


def test_a_title_that_is_filled_in_begins_where_the_instruction_does() -> None:
    (step,) = contract({"id": "s1", "kind": "agent", "instruction": f"{' ' * 80}Think."}).steps
    assert step.title == "Think."


def test_what_was_left_open_is_filled_in_for_the_approver() -> None:
    agent = {"id": "s3", "kind": "agent", "instruction": "Think " * 30, "tools": [{"server": "calc", "tool": "count"}]}
    drawn = contract(tool("s1"), tool("s2", title="Mine", timeout_s=3), agent)
    assert [step.title for step in drawn.steps] == ["files.read", "Mine", ("Think " * 30)[:80]]
    assert [step.timeout_s for step in drawn.steps if step.kind == "tool"] == [60, 3]
    assert drawn.server_ids == {"files", "calc"}
    assert set(drawn.pins) == set(drawn.policy) == {"files/read", "calc/count"}
    assert drawn.policy["files/read"] == PinnedPolicy(
        effect=Effect.READ, idempotent=True, open_world=True, approval="plan", vouched=False, timeout_s=60
    )
    assert drawn.servers == {"files": IDENTITY, "calc": IDENTITY}
    assert drawn.pins["calc/count"] == CATALOGUE["calc/count"].pin


def test_how_long_a_call_with_progress_may_take_is_in_the_digest_where_the_operator_says_it() -> None:
    plan = Plan.model_validate({"steps": [tool("s1")]})
    read = CATALOGUE["files/read"]
    usual, longer = (
        draw_up(plan, Limits(), {"files/read": read.model_copy(update={"max_timeout_s": seconds})}, model=None)
        for seconds in (None, 900.0)
    )
    assert "max_timeout_s" not in usual.as_digested()["policy"]["files/read"]
    assert longer.as_digested()["policy"]["files/read"]["max_timeout_s"] == 900
    assert usual.digest != longer.digest


def test_the_digest_is_the_hash_of_the_contract_as_json() -> None:
    drawn = contract()
    assert drawn.digest == "sha256:" + hashlib.sha256(canonical(drawn.as_digested())).hexdigest()
    assert Contract.model_validate_json(drawn.model_dump_json()).digest == drawn.digest


def changes() -> list[tuple[str, dict[str, Any]]]:
    """Yield contracts that each differ in one leaf."""
    limits = Limits(budget=Budget(tool_calls=5, seconds=5, tokens=5))
    steps = (tool("s1", retries=1), tool("s2", "write", arguments={"path": "${s1.text}"}, depends_on=["s1"]))
    whole = contract(*steps, limits=limits).as_digested()
    found: list[tuple[str, dict[str, Any]]] = [("nothing", whole)]

    def rebuilt(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
        if not path:
            return leaf
        copy = value.copy()
        copy[path[0]] = rebuilt(value[path[0]], path[1:], leaf)
        return copy

    def visit(value: Any, path: tuple[Any, ...]) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            visit(item, (*path, key))
        other: dict[Any, Any] = {"read": "write", "write": "destructive", "plan": "call", "tool": None, "s1": "s9"}
        if path and not isinstance(value, dict | list):
            changed = (
                other.get(value, f"{value}x") if isinstance(value, str) else not value if isinstance(value, bool) else 7
            )
            if path == ("form",):
                changed = 1
            if path[-1] == "when":
                changed = "${s1.text} == 'x'"
            if changed is not None:
                found.append((".".join(map(str, path)), rebuilt(whole, path, changed)))

    visit(whole, ())
    found.append(("order", whole | {"steps": whole["steps"][::-1]}))
    found.append(("fewer", whole | {"steps": whole["steps"][:1]}))
    return found


def test_any_change_of_a_contract_changes_its_digest() -> None:
    digests = {place: Contract.model_validate(whole).digest for place, whole in changes()}
    assert len(digests) > 25
    assert len(set(digests.values())) == len(digests)


@given(st.permutations(["a", "b", "c"]))
def test_the_order_of_arguments_does_not_change_the_digest(names: list[str]) -> None:
    one = contract(tool("s", "count", "calc", arguments={name: ord(name) for name in names}))
    assert one.digest == contract(tool("s", "count", "calc", arguments={"a": 97, "b": 98.0, "c": 99})).digest


def test_the_steps_that_nobody_takes_up_are_what_the_plan_is_for() -> None:
    plan = contract(tool("s1"), tool("s2", arguments={"path": "${s1.text}"}), tool("s3", depends_on=["s2"])).plan
    assert find_unreferenced_steps(plan) == ["s2", "s3"]


def test_a_reference_may_stand_where_a_plan_needs_a_number() -> None:
    assert faults(tool("s1"), tool("s2", "count", "calc", arguments={"n": "${s1.output.n}"})) == []


@pytest.mark.parametrize("junk", ["yes", "true", 1])
def test_what_lifts_a_question_is_said_plainly(junk: object) -> None:
    step = {"id": "s1", "kind": "agent", "instruction": "x", "preapproved": junk}
    with pytest.raises(ValidationError, match="preapproved"):
        Plan.model_validate({"goal": "g", "steps": [step]})


def test_the_reasoning_of_a_step_is_in_the_digest_as_soon_as_there_is_one() -> None:
    silent = contract(tool("s1"))
    assert contract(tool("s1", reasoning="")).digest == silent.digest
    assert "reasoning" not in silent.as_digested()["steps"][0]
    assert "reasoning" not in silent.model_dump_json()
    said = contract(tool("s1", reasoning="It holds the notes."))
    assert said.digest != silent.digest
    assert said.as_digested()["steps"][0]["reasoning"] == "It holds the notes."
    assert Contract.model_validate_json(said.model_dump_json()).digest == said.digest


def test_a_reasoning_that_looks_empty_is_a_fault() -> None:
    (fault,) = faults(tool("a", reasoning="\u200b"))
    assert fault.field == "steps[0].reasoning"


def test_steps_get_the_retries_of_the_limits_only_where_their_tools_may_be_retried() -> None:
    steps = (tool("a"), tool("b", retries=5), tool("c", "write"))
    plan = Plan.model_validate({"steps": steps})
    drawn = draw_up(plan, Limits(retries=2), CATALOGUE, model=None)
    assert [step.retries for step in drawn.steps if isinstance(step, ToolStep)] == [2, 5, 0]
    assert Limits().model_dump().keys() == {"budget", "max_steps"}


UNUSABLE = {"files/fat": "its definition is too large", "mail": "it did not start within 20 s."}


@pytest.mark.parametrize(
    ("server", "name", "field", "said"),
    [
        ("files", "fat", "tool", "Tool 'fat' of server 'files' cannot be used: its definition is too large."),
        ("files", "no", "tool", "Server 'files' has no tool 'no'; it has ask, "),
        ("mail", "send", "server", "Server 'mail' cannot be used now: it did not start within 20 s."),
        ("post", "send", "server", "There is no server 'post' to be used here; there are calc, "),
    ],
)
def test_a_tool_that_cannot_be_used_is_named_with_the_reason(server: str, name: str, field: str, said: str) -> None:
    step = tool("a", name, server=server)
    allowed = {"id": "b", "kind": "agent", "instruction": "Do it.", "tools": [{"server": server, "tool": name}]}
    plan = Plan.model_validate({"goal": "g", "steps": [step, allowed]})
    found = list(find_faults(plan, Limits(), CATALOGUE, agent_steps=True, unusable=UNUSABLE))
    assert [fault.field for fault in found] == [f"steps[0].{field}", f"steps[1].tools[0].{field}"]
    assert all(fault.message.startswith(said) for fault in found)
