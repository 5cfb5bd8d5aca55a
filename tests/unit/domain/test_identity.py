"""The comparison with a contract before a call: definitions of tools, and identities of servers and models (G6)."""

from typing import Any

import pytest

from agent_runtime.domain.contract import Contract, Limits, PinnedPolicy
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.errors import DefinitionChangedError
from agent_runtime.domain.identity import Identities, ServerIdentity, compare_pins
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.tools import ToolDefinition
from contracts import CATALOGUE, MODEL, NUMBER, TEXT, contract, make_tool, tool

ENTRY = {"type": "local_stdio", "argv": ["node", "files.js"]}
FACTS = {"type": "local_stdio", "command": "node", "args": ["files.js"], "env": {"TARGET": "staging"}, "cwd": "/srv"}


def on(facts: dict[str, Any]) -> Contract:
    """Return a contract with an agent step for a server with these facts."""
    identity = ServerIdentity(facts, ENTRY).digest
    catalogue = {key: each.model_copy(update={"identity": identity}) for key, each in CATALOGUE.items()}
    steps = [tool("s1"), {"id": "s2", "kind": "agent", "instruction": "Think."}]
    return draw_up(Plan.model_validate({"steps": steps}), Limits(), catalogue, model=MODEL)


def differences(**now: Any) -> list[str]:
    server = ServerIdentity({**FACTS, **now}, ENTRY)
    return Identities({"files": server}, MODEL).differences(on(FACTS), {"files": FACTS})


def test_a_server_that_is_what_it_was_differs_in_nothing() -> None:
    assert differences() == []
    assert Identities({}, MODEL).differences(on(FACTS), {"files": FACTS}) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"cwd": "/srv/b"}, 'files: cwd was "/srv" and is "/srv/b".'),
        ({"env": {"TARGET": "production"}}, 'files: env.TARGET was "staging" and is "production".'),
        ({"env": {}}, 'files: env.TARGET was "staging" and is no longer set.'),
        ({"env": {"TARGET": "staging", "B": "x"}}, 'files: env.B was not set and is "x".'),
        ({"args": ["files.js", "--all"]}, 'files: args was ["files.js"] and is ["files.js", "--all"].'),
    ],
)
def test_what_differs_is_said_in_the_operators_words(now: dict[str, Any], said: str) -> None:
    assert differences(**now) == [said]


def test_another_model_is_a_difference_of_a_plan_with_agent_steps() -> None:
    servers = {"files": ServerIdentity(FACTS, ENTRY)}
    other = MODEL.model_copy(update={"endpoints": ("https://elsewhere/v1",)})
    (said,) = Identities(servers, other).differences(on(FACTS), {"files": FACTS})
    assert said == 'the model: endpoints was ["http://localhost:1/v1"] and is ["https://elsewhere/v1"].'
    assert Identities(servers).differences(on(FACTS), {"files": FACTS}) == []  # there is none to be called
    assert Identities({}, other).differences(contract(), {}) == []


def test_a_plan_of_an_earlier_version_has_no_identities_of_its_own() -> None:
    assert Identities({"files": ServerIdentity(FACTS, ENTRY)}).differences(of_form_1(), {}) == []


def current(**changed: ToolDefinition | None) -> dict[str, ToolDefinition]:
    named = {name: CATALOGUE[f"files/{name}"].definition for name in ("read", "write")}
    return {name: definition for name, definition in (named | changed).items() if definition is not None}


def compare(now: dict[str, ToolDefinition], of_form_1: dict[str, Any] = ENTRY, server: str = "files") -> None:
    approved = {key: known.definition for key, known in CATALOGUE.items()}
    compare_pins(contract(), server, of_form_1, approved, now)


def test_definitions_that_are_what_was_approved_pass() -> None:
    compare(current(other=ToolDefinition(name="other")))
    compare({}, server="calc")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (current(read=None), "files/read: the server no longer has this tool."),
        (current(read=ToolDefinition(name="read", inputSchema=NUMBER)), "files/read: inputSchema was"),
        (
            current(read=ToolDefinition(name="read", inputSchema=TEXT, description="New")),
            "description was None and is 'New'.",
        ),
        (current(read=ToolDefinition(name="read", inputSchema={"maximum": 2**60})), "files/read: inputSchema was"),
    ],
)
def test_a_definition_that_differs_is_refused_and_shown(now: dict[str, ToolDefinition], said: str) -> None:
    with pytest.raises(DefinitionChangedError) as caught:
        compare(now)
    assert said in str(caught.value)


def test_every_difference_is_shown_and_long_ones_are_cut() -> None:
    now = current(read=None, write=ToolDefinition(name="write", inputSchema=TEXT, description="x" * 9999))
    with pytest.raises(DefinitionChangedError, match=r"files/read: .* files/write: description was None") as caught:
        compare(now)
    assert len(str(caught.value)) < 1000


def test_a_difference_is_shown_as_it_was_and_as_it_is() -> None:
    now = current(read=ToolDefinition(name="read", inputSchema={"type": "object"}, description="New"))
    with pytest.raises(DefinitionChangedError) as caught:
        compare(now)
    assert str(caught.value) == (
        "A tool is not what the plan was made with, so it was not called. "
        "files/read: description was None and is 'New'. "
        f"files/read: inputSchema was {TEXT!r} and is {{'type': 'object'}}."
    )


def of_form_1() -> Contract:
    """Return the contract in the form of earlier versions."""
    drawn = contract()
    pins = {key: CATALOGUE[key].definition.pin_of_form_1(ENTRY) for key in drawn.pins}
    policy = {
        key: PinnedPolicy(effect=said.effect, idempotent=said.idempotent, approval=said.approval)
        for key, said in drawn.policy.items()
    }
    return Contract(goal="g", steps=drawn.steps, limits=drawn.limits, policy=policy, pins=pins)


def test_a_plan_of_an_earlier_version_keeps_its_digest_and_its_comparison() -> None:
    old = of_form_1()
    assert set(old.as_digested()) == {"goal", "steps", "limits", "policy", "pins"}
    assert old.digest == "sha256:52d6d4f9dd265631cce0bb06ee4833c8a08b242544183fdedc5963a06bd756bb"
    approved = {key: known.definition for key, known in CATALOGUE.items()}
    compare_pins(old, "files", ENTRY, approved, current())
    with pytest.raises(DefinitionChangedError, match="its registry entry has changed"):
        compare_pins(old, "files", {"type": "local_stdio", "argv": ["evil"]}, approved, current())
    reordered = ToolDefinition(name="read", inputSchema={**TEXT, "type": ["object"]})
    with pytest.raises(DefinitionChangedError, match="files/read: inputSchema was"):
        compare_pins(old, "files", ENTRY, approved, current(read=reordered))


def test_a_tool_is_compared_whatever_its_name_and_whatever_other_servers_the_plan_uses() -> None:
    nested = make_tool("dir/read", TEXT)
    catalogue = {**CATALOGUE, nested.key: nested}
    plan = Plan.model_validate(
        {"steps": [tool("s1", "count", "calc"), tool("s2", "dir/read", arguments={"path": "a"})]}
    )
    drawn = draw_up(plan, Limits(), catalogue, model=None)
    compare_pins(drawn, "files", ENTRY, {}, {"dir/read": nested.definition})
    with pytest.raises(DefinitionChangedError, match="files/dir/read: the server no longer has this tool"):
        compare_pins(drawn, "files", ENTRY, {}, {})


@pytest.mark.parametrize(
    ("length", "shown"), [(298, f"'{'x' * 298}'."), (299, f"'{'x' * 199} ... {'x' * 79}'."), (9, "'xxxxxxxxx'.")]
)
def test_what_is_longer_than_three_hundred_characters_is_cut_in_the_middle(length: int, shown: str) -> None:
    now = current(write=ToolDefinition(name="write", inputSchema=TEXT, description="x" * length))
    with pytest.raises(DefinitionChangedError) as caught:
        compare(now)
    assert str(caught.value).endswith(f"files/write: description was None and is {shown}")
