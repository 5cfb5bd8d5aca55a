"""The differences between two revisions of a plan."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain import events as ev
from agent_runtime.domain.contract import Contract, Limits, PinnedPolicy
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.revisions import (
    Difference,
    Revision,
    RevisionChange,
    diff_revisions,
    format_diff,
    read_revisions,
)
from agent_runtime.domain.tools import Effect

AT = datetime(2026, 11, 21, tzinfo=UTC)


ABSENT = "absent"


def step(name: str, title: str = "t", **arguments: Any) -> ToolStep:
    given = {name: value for name, value in arguments.items() if value != ABSENT}
    return ToolStep(id=name, title=title, kind="tool", server="f", tool="read", arguments=given)


def contract(*steps: ToolStep, goal: str = "g", pin: str = "p", effect: Effect = Effect.READ) -> Contract:
    policy = PinnedPolicy(effect=effect, idempotent=True, approval="plan")
    return Contract(goal=goal, steps=steps, limits=Limits(), policy={"f/read": policy}, pins={"f/read": pin})


def revision(number: int, plan: Contract) -> Revision:
    return Revision(number, f"d{number}", AT, "rules", None, plan)


def test_a_step_that_is_added_removed_or_changed_is_named_with_its_fields() -> None:
    before = contract(step("s1", path="a", n=1), step("s2"))
    after = contract(step("s1", path="b", n=1.0, m=2), step("s3", x=None))
    changed, added, removed = diff_revisions(revision(1, before), revision(2, after))
    assert changed == RevisionChange(
        "s1", "changed", {"arguments.path": Difference("a", "b"), "arguments.m": Difference(None, 2, "added")}
    )
    assert (added.step_id, added.kind, added.fields["tool"]) == ("s3", "added", Difference(None, "read", "added"))
    assert (removed.step_id, removed.kind, removed.fields["title"]) == (
        "s2",
        "removed",
        Difference("t", None, "removed"),
    )


def test_what_differs_in_the_plan_as_a_whole_is_told_too() -> None:
    before = contract(step("s1"), step("s2"))
    after = contract(step("s2"), step("s1"), goal="h", pin="q", effect=Effect.WRITE)
    (whole,) = diff_revisions(revision(1, before), revision(2, after))
    assert whole.step_id is None
    assert list(whole.fields) == ["goal", "order", "policy.f/read", "pins.f/read"]
    assert whole.fields["order"] == Difference(["s1", "s2"], ["s2", "s1"])


def test_what_differs_in_a_server_is_told_fact_by_fact() -> None:
    plan = contract(step("s1"))
    before = replace(revision(1, plan), identities={"f": {"cwd": "/a", "env": {"T": "x", "U": "y"}}, "only": {"a": 1}})
    after = replace(revision(2, plan), identities={"f": {"cwd": "/b", "env": {"T": "x", "V": "z"}}})
    (whole,) = diff_revisions(before, after)
    assert whole.fields == {
        "servers.f.cwd": Difference("/a", "/b"),
        "servers.f.env.U": Difference("y", None, "removed"),
        "servers.f.env.V": Difference(None, "z", "added"),
    }
    assert '+servers.f.cwd = "/b"' in format_diff(before, after).split("\n")


def test_the_text_reads_like_a_unified_diff() -> None:
    before = revision(1, contract(step("s1", path="a"), step("s2", "same"), step("s4")))
    after = revision(2, contract(step("s1", path="b"), step("s2", "same"), step("s3", "a\nb")))
    text = format_diff(before, after).split("\n")
    assert text[:6] == [
        "--- revision 1 d1",
        "+++ revision 2 d2",
        ' s1: "t"',
        '-    arguments.path = "a"',
        '+    arguments.path = "b"',
        ' s2: "same"',
    ]
    assert text[6:9] == ['+s3: "a\\nb"', '+    title = "a\\nb"', "+    depends_on = []"]
    assert '-s4: "t"' in text


def test_nothing_hides_in_the_text() -> None:
    before = revision(1, contract(step("s1", path="report.txt")))
    after = revision(2, contract(step("s1", path="report.txt\u3164", a️=1)))
    text = format_diff(before, after)
    assert '+    arguments.path = "report.txt\\u3164"' in text
    assert '+    "arguments.a\\ufe0f" = 1' in text


VALUES = st.recursive(
    st.just(ABSENT) | st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5), st.lists, max_leaves=5
)
PLANS = st.lists(
    st.builds(step, st.sampled_from(["s1", "s2", "s3", "s4"]), st.text(max_size=5), x=VALUES, y=VALUES),
    min_size=1,
    unique_by=lambda one: one.id,
).map(lambda steps: contract(*steps))


@pytest.mark.slow
@given(PLANS, PLANS)
def test_there_is_no_change_exactly_where_the_digest_is_the_same(before: Contract, after: Contract) -> None:
    assert (diff_revisions(revision(1, before), revision(2, after)) == []) == (before.digest == after.digest)
    marks = {line[0] for line in format_diff(revision(1, before), revision(2, after)).split("\n")[2:]}
    assert ({"+", "-"} & marks == set()) == (before.digest == after.digest)


def test_every_revision_is_read_from_the_journal_with_its_maker_and_its_reason() -> None:
    plan = contract(step("s1"))

    def plan_proposed(number: int) -> ev.PlanProposed:
        return ev.PlanProposed(revision=number, digest=plan.digest, contract=plan, definitions={}, planner="rules")

    events = [
        ev.TaskSubmitted(prompt="p"),
        plan_proposed(1),
        ev.PlanRevisionRequested(feedback="no", revision=1, digest=plan.digest),
        ev.TaskClaimed(runner="r", epoch=2),
        plan_proposed(2),
        ev.PlanEdited(revision=3, digest=plan.digest, contract=plan, definitions={}, actor="ann"),
        plan_proposed(4),
    ]
    found = list(read_revisions(ev.make_record("t", seq, None, AT, event) for seq, event in enumerate(events, 1)))
    assert [(one.number, one.by, one.feedback) for one in found] == [
        (1, "rules", None),
        (2, "rules", "no"),
        (3, "ann", None),
        (4, "rules", None),
    ]
