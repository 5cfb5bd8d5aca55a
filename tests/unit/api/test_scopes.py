"""Every route of every door declares its scopes, and the same decision needs the same through each door."""

from collections.abc import Iterator

import pytest
from starlette.routing import Route, WebSocketRoute

from agent_runtime.api.agui_interrupts import scopes_of_decision
from agent_runtime.api.app import ROUTERS
from agent_runtime.api.decisions import DECISIONS
from agent_runtime.api.mcp_server.definitions import TOOLS
from agent_runtime.api.scopes import scopes_of
from agent_runtime.domain.approval import (
    Answer,
    Approve,
    ApproveCall,
    Cancel,
    Decision,
    DenyCall,
    Edit,
    Reject,
    Resolve,
    Revise,
)
from agent_runtime.domain.plan import Plan

TASK = "/v1/tasks/{task_id}"
STREAMS = [f"{prefix}/tasks/{{task_id}}/stream" for prefix in ("/v1", "", "/api")]
OPEN = ("/", "/api/v1/health", "/client.js", "/docs", "/health", "/healthz", "/openapi.json", "/readyz")

OVER_REST = {
    "approve": f"{TASK}/approve",
    "reject": f"{TASK}/reject",
    "revise": f"{TASK}/revise",
    "cancel": f"{TASK}/cancel",
    "resolve": f"{TASK}/resolve",
    "approve_call": f"{TASK}/calls/{{call_id}}/approve",
    "deny_call": f"{TASK}/calls/{{call_id}}/deny",
    "answer": f"{TASK}/answers/{{question_id}}",
}
"""The path of each decision that a WebSocket takes."""

SAME = {
    ("POST", "/v1/tasks"): [("POST", "/tasks"), ("POST", "/api/tasks")],
    ("GET", TASK): [("GET", "/tasks/{task_id}"), ("GET", "/api/tasks/{task_id}")],
    ("GET", f"{TASK}/stream"): [(method, path) for path in STREAMS for method in ("GET", "WEBSOCKET")],
}
"""Routes that do the same at other addresses."""


def routes() -> Iterator[tuple[str, str, tuple[str, ...], bool]]:
    """Yield the method, path and scopes of each route, and whether its endpoint declares them."""
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route | WebSocketRoute)
            declared = hasattr(route.endpoint, "required_scopes")
            methods = route.methods or () if isinstance(route, Route) else ("WEBSOCKET",)
            for method in methods:
                yield method, route.path, scopes_of(route.endpoint), declared


NEEDED = {(method, path): scopes for method, path, scopes, _ in routes()}


def test_every_route_of_every_door_declares_its_scopes() -> None:
    assert [(method, path) for method, path, _, declared in routes() if not declared] == []


def test_only_the_pages_and_the_probes_are_open_to_everybody() -> None:
    opened = {path for (_, path), scopes in NEEDED.items() if not scopes and not path.startswith("/console/")}
    assert opened == set(OPEN)


@pytest.mark.parametrize("first", SAME)
def test_the_same_at_another_address_needs_the_same(first: tuple[str, str]) -> None:
    assert [NEEDED[other] for other in SAME[first]] == [NEEDED[first]] * len(SAME[first])


@pytest.mark.parametrize("kind", DECISIONS)
def test_a_decision_on_a_websocket_needs_what_it_needs_over_rest(kind: str) -> None:
    assert DECISIONS[kind].scopes == NEEDED[("POST", OVER_REST[kind])]


def test_a_decision_in_a_run_needs_what_it_needs_over_rest() -> None:
    plan = Plan.model_validate({"steps": [{"id": "s", "kind": "tool", "server": "c", "tool": "t", "arguments": {}}]})
    decisions: dict[str, Decision] = {
        "approve": Approve(),
        "reject": Reject(),
        "revise": Revise(feedback="other"),
        "cancel": Cancel(),
        "resolve": Resolve(step_id="s", resolution="done"),
        "approve_call": ApproveCall(call_id="c", arguments_digest="d"),
        "deny_call": DenyCall(call_id="c", arguments_digest="d"),
        "answer": Answer(question_id="q", action="decline"),
    }
    assert decisions.keys() == OVER_REST.keys()
    for kind, decision in decisions.items():
        assert scopes_of_decision(decision) == NEEDED[("POST", OVER_REST[kind])]
    assert scopes_of_decision(Edit(plan=plan, digests=None)) == NEEDED[("PUT", f"{TASK}/plan")]


BY_TOOL = {
    "submit_task": ("POST", "/v1/tasks"),
    "get_task": ("GET", TASK),
    "wait_for_task": ("GET", f"{TASK}/stream"),
    "list_tasks": ("GET", "/v1/tasks"),
    "list_tools": ("GET", "/v1/tools"),
    "cancel_task": ("POST", f"{TASK}/cancel"),
}
"""The routes that do what a tool of the MCP server does."""


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_of_the_mcp_server_needs_what_it_needs_over_rest(name: str) -> None:
    assert TOOLS[name].scopes == NEEDED[BY_TOOL[name]]


def test_the_mcp_door_lets_in_whoever_may_call_one_of_its_tools() -> None:
    needed = {scope for definition in TOOLS.values() for scope in definition.scopes}
    for method in ("GET", "POST", "DELETE"):
        assert set(NEEDED[(method, "/mcp")]) == needed
