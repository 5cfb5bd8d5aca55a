"""Denials of the operator: which calls they match, with every way to read a path."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from agent_runtime.domain.contract import Limits
from agent_runtime.domain.deny import applies, find_denial, with_denials
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.errors import Fault
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.references import as_text
from agent_runtime.domain.schemas import as_open
from agent_runtime.domain.tools import Denial, ServerDenial, ToolDefinition, ToolServer, describe_tool

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5)
names = st.text("ab", min_size=1, max_size=2)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


def literally(text: str) -> str:
    """Return a glob that matches this text and no other."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def forbids(arguments: dict[str, Any], path: str, pattern: str) -> bool:
    return applies(Denial(arguments={path: pattern}), arguments)


@given(values)
def test_a_value_is_matched_as_text_wherever_lists_and_objects_hide_it(value: Any) -> None:
    pattern = literally(as_text(value))
    if not pattern or "${" in pattern:
        return
    assert forbids({"a": value}, "a", pattern)
    assert forbids({"a": [1, value]}, "a.*", pattern)
    assert forbids({"a": [1, value]}, "a.1", pattern)
    assert forbids({"a": [{"b": value}]}, "a.b", pattern)
    assert forbids({"a": [{"b": [value, "x"]}]}, "a.b.*", pattern)
    assert forbids({"a.b": value}, "a.b", pattern)
    assert forbids({"a": {"b": {"c": value}}}, "a.b.c", pattern)
    assert forbids({"a": {"b.c": value}}, "a.b.c", pattern)
    assert not forbids({"b": value}, "a", pattern)


@given(scalars, values)
def test_what_lies_anywhere_inside_an_argument_is_found(scalar: Any, beside: Any) -> None:
    pattern = literally(as_text(scalar))
    if pattern and "${" not in pattern:
        assert forbids({"a": {"x": [beside, {"y": [scalar]}]}}, "a", pattern)


@given(st.dictionaries(names, values, max_size=3))
def test_a_denial_without_arguments_forbids_every_call_of_its_tool(arguments: dict[str, Any]) -> None:
    assert find_denial([Denial(tool="write_*")], "write_file", arguments) == "denied by the operator (deny 'write_*')"
    assert find_denial([Denial(tool="write_*")], "read_file", arguments) is None
    assert find_denial([Denial(tool="write_*")], "Write_file", arguments) is None
    assert find_denial([], "write_file", arguments) is None


@given(st.dictionaries(names, values, max_size=3), st.sampled_from([("a",), ("a", "b"), ("a", "b", "ab")]))
def test_every_argument_that_a_denial_names_must_match(arguments: dict[str, Any], paths: tuple[str, ...]) -> None:
    together = applies(Denial(arguments=dict.fromkeys(paths, "*")), arguments)
    assert together == all(applies(Denial(arguments={path: "*"}), arguments) for path in paths)
    assert together == all(path in arguments for path in paths)


@pytest.mark.parametrize(
    ("arguments", "path", "pattern", "expected"),
    [
        ({"path": "/etc/passwd"}, "path", "/etc/*", True),
        ({"path": "/etc/a/b\nc"}, "path", "/etc/*", True),
        ({"path": "/etc/../home"}, "path", "/etc/*", True),
        ({"path": "/home/../etc/passwd"}, "path", "/etc/*", False),
        ({"path": "/ETC/passwd"}, "path", "/etc/*", False),
        ({"path": "/etc/passwd"}, "Path", "*", False),
        ({}, "path", "*", False),
        ({"path": None}, "path", "null", True),
        ({"path": ""}, "path", "*", True),
        ({"path": ""}, "path", "?*", False),
        ({"paths": []}, "paths", "/etc/*", False),
        ({"paths": ["/home", "/etc/x"]}, "paths", "/etc/*", True),
        ({"paths": ["/home", "/etc/x"]}, "paths.*", "/etc/*", True),
        ({"paths": ["/home", "/etc/x"]}, "paths.1", "/etc/*", True),
        ({"paths": ["/home", "/etc/x"]}, "paths.0", "/etc/*", False),
        ({"files": [{"path": "/etc/x"}]}, "files.path", "/etc/*", True),
        ({"files": [{"path": "/etc/x"}]}, "files.*.path", "/etc/*", True),
        ({"files": [{"path": "/etc/x"}]}, "files.0.path", "/etc/*", True),
        ({"files": {"a": {"path": "/etc/x"}}}, "files.*.path", "/etc/*", True),
        ({"files": {"a": {"path": "/etc/x"}}}, "*", "/etc/*", True),
        ({"files": {"a": {"path": "/etc/x"}}}, "files.path", "*", False),
        ({"path": "/etc/x"}, "path.deeper", "*", False),
        ({"a": "x", "b": {"c": "y"}}, "*", "z", False),
        ({"options": {"force": True}}, "options", '{"force":true}', True),
        ({"options": {"force": True}}, "options.force", "true", True),
        ({"options": {"force": "true"}}, "options.force", "true", True),
        ({"options": {"force": 1}}, "options.force", "true", False),
        ({"n": 5.0}, "n", "5", True),
        ({"n": "5"}, "n", "5", True),
        ({"n": 50}, "n", "5", False),
        ({"n": 1e22}, "n", "1e+22", True),
    ],
)
def test_what_a_path_and_a_glob_match(arguments: dict[str, Any], path: str, pattern: str, *, expected: bool) -> None:
    assert forbids(arguments, path, pattern) is expected


def test_what_holds_a_reference_is_not_judged_before_it_is_known() -> None:
    known = as_open({"a": "/etc/${s1.text}", "b": ["/etc/x", "${s1.text}"], "c": {"d": "$${HOME}"}})
    assert not forbids(known, "a", "*")
    assert forbids(known, "b", "/etc/*")
    assert not forbids(known, "b", '["/etc/x",*')
    assert forbids(known, "c.d", "$[{]HOME}")
    assert forbids({"b": ["/etc/x", "${s1.text}"]}, "b", '["/etc/x",*')


def test_a_person_is_told_the_reason_and_the_rule() -> None:
    bare = Denial(tool="w", arguments={"path": "/etc/*", "force": "true"})
    assert bare.told == "denied by the operator (deny 'w' with path like '/etc/*' and force like 'true')"
    said = Denial(tool="w", reason="nothing is written here")
    assert said.told == "denied by the operator: nothing is written here (deny 'w')"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tool": ""},
        {"tool": None},
        {"arguments": {"a": ""}},
        {"arguments": {"a": 5}},
        {"arguments": {"": "*"}},
        {"arguments": {"a..b": "*"}},
        {"arguments": {".a": "*"}},
        {"arguments": {"a": "${env:HOME}/*"}},
        {"server": "files"},
    ],
)
def test_a_denial_that_could_protect_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Denial.model_validate(wrong)


def server(server_id: str, *deny: dict[str, Any]) -> ToolServer:
    entry = {"id": server_id, "type": "local_stdio", "config": {"command": "x"}, "deny": deny}
    return TypeAdapter[ToolServer](ToolServer).validate_python(entry)


def test_what_the_settings_deny_of_a_server_joins_what_its_entry_denies() -> None:
    everywhere = ServerDenial(tool="delete_*")
    files = ServerDenial(server="file*", tool="write")
    one, two = with_denials([server("files", {"tool": "move"}), server("mail")], [everywhere, files])
    assert one.deny == (Denial(tool="move"), everywhere, files)
    assert two.deny == (everywhere,)


def faults(deny: list[dict[str, Any]], *steps: dict[str, Any]) -> list[Fault]:
    entry = server("files", *deny)
    tools = [describe_tool(entry, ToolDefinition(name=name, inputSchema={"type": "object"})) for name in ("get", "put")]
    plan = Plan.model_validate({"steps": steps})
    return list(find_faults(plan, Limits(), {tool.key: tool for tool in tools}, agent_steps=True))


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"s-{tool}", "kind": "tool", "server": "files", "tool": tool, "arguments": arguments}


def test_a_plan_is_refused_with_the_place_of_everything_that_is_denied() -> None:
    secret = {"tool": "[gp]et", "arguments": {"path": "/etc/*"}, "reason": "secret"}
    deny: list[dict[str, Any]] = [{"tool": "put"}, secret]
    agent = {"id": "w", "kind": "agent", "instruction": "do", "tools": [{"server": "files", "tool": "put"}]}
    assert faults(deny, call("get", path="/etc/x"), call("put"), agent) == [
        Fault("steps[0].arguments", "Denied by the operator: secret (deny '[gp]et' with path like '/etc/*')."),
        Fault("steps[1].tool", "Denied by the operator (deny 'put')."),
        Fault("steps[2].tools[0].tool", "Denied by the operator (deny 'put')."),
    ]


def test_a_plan_whose_arguments_are_not_known_yet_is_judged_at_the_call() -> None:
    deny = [{"tool": "put", "arguments": {"path": "/etc/*"}}]
    agent = {"id": "w", "kind": "agent", "instruction": "do", "tools": [{"server": "files", "tool": "put"}]}
    assert faults(deny, call("get"), call("put", path="${s-get.text}"), agent) == []
    assert len(faults(deny, call("get"), call("put", path=["${s-get.text}", "/etc/x"]))) == 1
    anything = [{"tool": "put", "arguments": {"path": "*"}}]
    assert faults(anything, call("get"), call("put", path="${s-get.text}")) == []
    assert len(faults([{"tool": "put", "arguments": {"path": "?{HOME}"}}], call("put", path="$${HOME}"))) == 1
