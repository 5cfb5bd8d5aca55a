from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent_runtime.domain.tools import (
    BuiltinServer,
    Effect,
    StdioServer,
    ToolDefinition,
    ToolServer,
    describe_tool,
)

hints = st.dictionaries(
    st.sampled_from(["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"]),
    st.booleans() | st.sampled_from([None, "true", 1]),
)


def server(**fields: Any) -> StdioServer:
    return StdioServer.model_validate(
        {"id": "files", "type": "local_stdio", "config": {"command": "node", "args": ["x.js"]}} | fields
    )


def tool(annotations: dict[str, Any] | None = None, name: str = "write_file") -> ToolDefinition:
    return ToolDefinition(name=name, inputSchema={"type": "object"}, annotations=annotations)


@given(hints)
def test_the_claims_of_a_server_only_ever_raise_caution(claims: dict[str, Any]) -> None:
    silent, claimed = describe_tool(server(), tool()), describe_tool(server(), tool(claims))
    admitted = claims.get("destructiveHint") is True and claims.get("readOnlyHint") is not True
    assert claimed.effect is (Effect.DESTRUCTIVE if admitted else Effect.UNKNOWN)
    assert (claimed.idempotent, claimed.open_world, claimed.approval) == (False, True, "plan")
    assert silent.effect is Effect.UNKNOWN


@given(
    claims=hints,
    effect=st.sampled_from(list(Effect)),
    idempotent=st.booleans(),
    open_world=st.booleans(),
    trust=st.sampled_from(["none", "annotations"]),
)
def test_the_operators_word_beats_every_claim(
    claims: dict[str, Any], effect: Effect, *, idempotent: bool, open_world: bool, trust: str
) -> None:
    said = {"effect": effect, "idempotent": idempotent, "open_world": open_world, "approval": "call", "timeout_s": 7}
    found = describe_tool(server(trust=trust, tools={"write_file": said}), tool(claims))
    assert (found.effect, found.idempotent, found.open_world, found.approval, found.timeout_s) == (
        effect,
        idempotent,
        open_world,
        "call",
        7,
    )


@pytest.mark.parametrize(
    ("claims", "effect", "idempotent", "open_world"),
    [
        ({}, Effect.DESTRUCTIVE, False, True),
        ({"readOnlyHint": True, "openWorldHint": False}, Effect.READ, True, False),
        ({"destructiveHint": False}, Effect.WRITE, False, True),
        ({"destructiveHint": False, "idempotentHint": True}, Effect.WRITE, True, True),
        ({"destructiveHint": True}, Effect.DESTRUCTIVE, False, True),
        ({"destructiveHint": True, "readOnlyHint": True}, Effect.READ, True, True),
    ],
)
def test_trusted_annotations_are_believed_with_the_defaults_of_the_protocol(
    claims: dict[str, Any], effect: Effect, *, idempotent: bool, open_world: bool
) -> None:
    found = describe_tool(server(trust="annotations"), tool(claims))
    assert (found.effect, found.idempotent, found.open_world) == (effect, idempotent, open_world)


def test_a_tool_is_described_by_its_server_and_its_key() -> None:
    builtin = BuiltinServer.model_validate({"id": "calc", "type": "builtin", "config": {"server": "calculator"}})
    found = describe_tool(builtin, tool({"readOnlyHint": True}, name="a/b"))
    assert (found.key, found.name, found.builtin, found.effect) == ("calc/a/b", "a/b", True, Effect.READ)
    assert describe_tool(server(client_session_timeout_seconds=9), tool()).timeout_s == 9


def test_a_tool_is_described_with_its_pin_and_what_its_server_is() -> None:
    found = describe_tool(server(), tool(), "sha256:aa")
    assert (found.pin, found.identity) == (tool().pin, "sha256:aa")


@pytest.mark.parametrize("trust", ["none", "annotations"])
def test_a_tool_that_is_admitted_to_be_destructive_is_so_whoever_says_it(trust: str) -> None:
    found = describe_tool(server(trust=trust), tool({"destructiveHint": True, "readOnlyHint": False}))
    assert found.effect is Effect.DESTRUCTIVE


def test_the_exact_name_is_heard_first_then_the_globs_in_the_order_of_the_file() -> None:
    policies: dict[str, Any] = {
        "*": {"effect": "unknown", "timeout_s": 5, "open_world": False},
        "write_*": {"effect": "write", "idempotent": True},
        "write_file": {"effect": "destructive"},
        "read_*": {"enabled": False},
        "[rw]*_file": {"approval": "call"},
    }
    said = server(tools=policies).policy_for("write_file")
    assert said.model_dump() == {
        "effect": "destructive",
        "idempotent": True,
        "open_world": False,
        "approval": "call",
        "timeout_s": 5,
        "max_timeout_s": None,
        "enabled": None,
    }
    assert server(tools=policies).policy_for("Write_file").effect is Effect.UNKNOWN
    assert server().policy_for("anything").model_dump(exclude_none=True) == {}


def test_a_name_that_looks_like_a_glob_is_still_an_exact_name() -> None:
    assert (
        server(tools={"*": {"effect": "read"}, "a[b]": {"effect": "write"}}).policy_for("a[b]").effect is Effect.WRITE
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"title": "T"},
        {"description": "D"},
        {"inputSchema": {"type": "object", "required": ["a"]}},
        {"outputSchema": {}},
        {"annotations": {}},
    ],
)
def test_every_part_of_a_definition_is_pinned(change: dict[str, Any]) -> None:
    one = tool()
    other = ToolDefinition.model_validate(one.model_dump() | change)
    assert other.pin != one.pin
    assert other.pin_of_form_1({"type": "x"}) != one.pin_of_form_1({"type": "x"})
    assert one.pin_of_form_1({"type": "y"}) != one.pin_of_form_1({"type": "x"})


def test_a_definition_is_pinned_with_every_digit_of_its_numbers() -> None:
    one, other = (ToolDefinition(name="t", inputSchema={"maximum": 2**60 + n}) for n in range(2))
    assert one.pin != other.pin


def test_a_definition_that_cannot_be_carried_exactly_cannot_be_described() -> None:
    with pytest.raises(ValueError, match=r"."):
        describe_tool(server(), ToolDefinition(name="t", inputSchema={"maximum": float("inf")}))


def test_a_pin_is_the_same_however_a_server_orders_the_sets_of_its_schemas() -> None:
    one = {"type": ["object", "null"], "required": ["a", "b"], "properties": {"a": {"enum": [1, "x"]}}}
    other = {"type": ["null", "object"], "required": ["b", "a", "b"], "properties": {"a": {"enum": ["x", 1]}}}
    assert ToolDefinition(name="t", inputSchema=one).pin == ToolDefinition(name="t", inputSchema=other).pin
    assert ToolDefinition(name="t", outputSchema=one).pin == ToolDefinition(name="t", outputSchema=other).pin


def test_what_the_wire_says_beside_the_definition_is_not_pinned() -> None:
    extra = ToolDefinition.model_validate({"name": "t", "inputSchema": {}, "_meta": {"a": 1}, "icons": []})
    assert extra.pin == ToolDefinition(name="t").pin


def test_pins_of_form_1_cover_the_text_of_the_entry_of_the_server() -> None:
    entries: list[dict[str, Any]] = [
        {"id": "a", "type": "local_stdio", "config": {"command": "node", "args": ["x"], "env": {"K": "${env:K}"}}},
        {"id": "b", "type": "remote_http", "config": {"base_url": "https://x.example/${env:T}", "headers": {"A": "b"}}},
        {"id": "c", "type": "builtin", "config": {"server": "filesystem", "root": "./data"}},
    ]
    adapter: TypeAdapter[ToolServer] = TypeAdapter(ToolServer)
    assert [adapter.validate_python(entry).identity_of_form_1 for entry in entries] == [
        {"type": "local_stdio", "argv": ["node", "x"]},
        {"type": "remote_http", "url": "https://x.example/${env:T}"},
        {"type": "builtin", "server": "filesystem", "root": "./data"},
    ]
    with pytest.raises(ValidationError, match="base_url"):
        adapter.validate_python({"id": "b", "type": "remote_http", "config": {"base_url": "file:///etc"}})
