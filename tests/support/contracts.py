"""A catalogue with a few tools, and contracts that use them."""

from collections.abc import Mapping
from typing import Any

from agent_runtime.domain.contract import Contract, Limits, PinnedModel
from agent_runtime.domain.drafting import draw_up
from agent_runtime.domain.identity import Identities, ServerIdentity
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.tools import Effect, Tool, ToolDefinition, ToolServer
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.registry.resolved import ResolvedEntry

MODEL = PinnedModel(entry="openai", endpoints=("http://localhost:1/v1",), model="test-model")
IDENTITY = "sha256:files"
TEXT = {
    "type": "object",
    "properties": {"path": {"type": "string"}},
    "required": ["path"],
    "additionalProperties": False,
}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}}


def make_tool(name: str, schema: dict[str, Any], server: str = "files", **more: Any) -> Tool:
    definition = ToolDefinition(name=name, inputSchema=schema)
    fields = {
        "server": server,
        "definition": definition,
        "pin": definition.pin,
        "identity": IDENTITY,
        "effect": Effect.WRITE,
        "idempotent": False,
        "open_world": True,
        "approval": "plan",
        "timeout_s": 60,
    }
    return Tool.model_validate(fields | more)


def make_current_registry(server: ToolServer, identities: Identities | None = None) -> CurrentRegistry:
    """A registry with one server, in which servers and model are what `identities` say, by default unknown."""
    known = identities or Identities({})
    current = CurrentRegistry([ResolvedEntry(server, known.servers.get(server.id, ServerIdentity({}, {})))])
    current.identities = known
    return current


CATALOGUE: Mapping[str, Tool] = {
    tool.key: tool
    for tool in (
        make_tool("read", TEXT, effect="read", idempotent=True),
        make_tool("write", TEXT),
        make_tool("count", NUMBER, server="calc"),
        make_tool("ask", {}, approval="call"),
    )
}


def tool(step_id: str, name: str = "read", server: str = "files", **more: Any) -> dict[str, Any]:
    arguments = {"path": "a.txt"} if name in {"read", "write"} else {}
    return {"id": step_id, "kind": "tool", "server": server, "tool": name, "arguments": arguments} | more


def contract(*steps: dict[str, Any], limits: Limits | None = None) -> Contract:
    plan = Plan.model_validate({"goal": "g", "steps": steps or (tool("s1"), tool("s2", "write"))})
    return draw_up(plan, limits or Limits(), CATALOGUE, model=MODEL)
