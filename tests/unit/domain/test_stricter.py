"""Contracts tightened to the current registry, field by field, and never more permissive than approved."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.contract import Contract, Limits, PinnedPolicy
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.stricter import tighten_contract
from agent_runtime.domain.tools import Effect, StdioServer, Tool, ToolDefinition, describe_tool
from agent_runtime.registry.operator_rules import OperatorRules

EFFECTS = [Effect.READ, Effect.WRITE, Effect.DESTRUCTIVE, Effect.UNKNOWN]
"""From the mildest to the one that is treated as the worst."""

DEFINITION = ToolDefinition(name="do", annotations={"readOnlyHint": True})
POLICIES = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(EFFECTS),
        "idempotent": st.booleans(),
        "open_world": st.booleans(),
        "approval": st.sampled_from(["plan", "call", None]),
        "timeout_s": st.sampled_from([5, 50]),
        "max_timeout_s": st.sampled_from([60, 80, None]),
    }
)


def server(policy: Mapping[str, Any], **more: Any) -> StdioServer:
    entry = {"id": "s", "type": "local_stdio", "config": {"command": "x"}, "tools": {"do": policy}, **more}
    return StdioServer.model_validate(entry)


def tool(policy: Mapping[str, Any]) -> Tool:
    return describe_tool(server(policy), DEFINITION)


def contract(policy: Mapping[str, Any]) -> Contract:
    plan = Plan.model_validate({"steps": [{"id": "a", "kind": "tool", "server": "s", "tool": "do"}]})
    return draw_up(plan, Limits(), {"s/do": tool(policy)}, model=None)


@given(POLICIES, POLICIES)
def test_each_part_of_a_policy_is_the_stricter_of_the_two(before: dict[str, Any], now: dict[str, Any]) -> None:
    held = tighten_contract(contract(before), {"s/do": tool(now)})
    policy = held.contract.policy["s/do"]
    assert policy.effect == max(before["effect"], now["effect"], key=EFFECTS.index)
    assert policy.idempotent == (before["idempotent"] and now["idempotent"])
    assert policy.open_world == (before["open_world"] or now["open_world"])
    assert (policy.approval == "call") == ("call" in {before["approval"], now["approval"]})
    assert policy.vouched == (before["approval"] == now["approval"] == "plan")
    assert policy.timeout_s == min(before["timeout_s"], now["timeout_s"])
    assert policy.longest_s() == min(said["max_timeout_s"] or 10 * said["timeout_s"] for said in (before, now))
    raised = EFFECTS.index(now["effect"]) > EFFECTS.index(before["effect"])
    assert bool(held.asks) == (raised or (now["open_world"] and not before["open_world"]))


@given(POLICIES, POLICIES)
def test_what_asked_before_asks_still(before: dict[str, Any], now: dict[str, Any]) -> None:
    plan = contract(before)
    assert tighten_contract(plan, {"s/do": tool(now)}).contract.asks.keys() >= plan.asks.keys()


def test_a_tool_whose_server_is_not_configured_any_more_stays_as_it_was() -> None:
    plan = contract({"effect": "read"})
    assert tighten_contract(plan, {}).contract.policy == plan.policy


@given(POLICIES)
def test_a_contract_of_an_earlier_version_is_held_to_what_it_says(now: dict[str, Any]) -> None:
    drawn = contract({"effect": "write", "idempotent": True, "approval": "plan"})
    said = PinnedPolicy(effect=Effect.WRITE, idempotent=True, approval="plan")
    old = Contract.model_validate(drawn.model_dump() | {"form": 1, "policy": {"s/do": said}, "servers": {}})
    held = tighten_contract(old, {"s/do": tool(now)})
    policy = held.contract.policy["s/do"]
    assert (policy.open_world, policy.vouched, held.contract.asks) == (None, None, {})
    assert policy.idempotent == now["idempotent"]
    assert (policy.approval == "call") == (now["approval"] == "call")
    assert bool(held.asks) == (now["effect"] in {Effect.DESTRUCTIVE, Effect.UNKNOWN})


@given(POLICIES)
def test_a_registry_that_says_what_it_said_gives_the_contract_as_it_is(policy: dict[str, Any]) -> None:
    rules = OperatorRules({"s": server(policy)})
    assert rules.tighten_contract(contract(policy), {"s/do": DEFINITION}) is None


@pytest.mark.parametrize("annotations", [{"readOnlyHint": True}, {"readOnlyHint": "yes"}, {"other": {}}, None])
def test_trusted_annotations_count_as_they_did_when_the_plan_was_made(annotations: dict[str, Any] | None) -> None:
    entry = server({}, trust="annotations")
    definition = ToolDefinition(name="do", annotations=annotations)
    plan = Plan.model_validate({"steps": [{"id": "a", "kind": "tool", "server": "s", "tool": "do"}]})
    drawn = draw_up(plan, Limits(), {"s/do": describe_tool(entry, definition)}, model=None)
    assert OperatorRules({"s": entry}).tighten_contract(drawn, {"s/do": definition}) is None


def test_a_disabled_tool_and_denials_are_told() -> None:
    rules = OperatorRules({"s": server({"enabled": False}, deny=[{"tool": "x"}])})
    held = rules.tighten_contract(contract({}), {"s/do": DEFINITION})
    assert held
    assert held.disabled == {"s/do"}
    assert [denial.tool for denial in rules.denials("s")] == ["x"]
    assert rules.denials("t") == ()
    assert OperatorRules({}).tighten_contract(contract({}), {"s/do": DEFINITION}) is None
