"""The effect of a step in words: what the operator or a trusted server says, and what a server only claims."""

from collections.abc import Mapping

from agent_runtime.domain.contract import Contract
from agent_runtime.domain.plan import AgentStep, ToolStep, tool_keys
from agent_runtime.domain.present_files import FileState
from agent_runtime.domain.tools import Effect, ToolDefinition

_WORST = (Effect.UNKNOWN, Effect.DESTRUCTIVE, Effect.WRITE, Effect.READ)
_CERTAIN = {Effect.READ: "only reads", Effect.WRITE: "writes", Effect.DESTRUCTIVE: "destructive"}
_POSSIBLE = {Effect.READ: "only reads", Effect.WRITE: "may write", Effect.DESTRUCTIVE: "may destroy"}


def worst_effect(effects: set[Effect]) -> Effect:
    """Return the worst of these effects; `read` if there are none."""
    return next((effect for effect in _WORST if effect in effects), Effect.READ)


def describe_effect(
    contract: Contract,
    step: ToolStep | AgentStep,
    definitions: Mapping[str, ToolDefinition],
    *,
    replaces: bool = False,
    file: FileState | None = None,
) -> tuple[Effect, str]:
    """Return the effect of a step and a short text on it. `definitions` are by `server/tool`.

    The effect is that of the contract, unless the built-in tool that writes whole files (`replaces`) finds none to
    replace. `file`: what its path names now, or None if that is not known.
    """
    keys = tool_keys(step)
    effect = worst_effect({contract.policy[key].effect for key in keys})
    if effect is Effect.UNKNOWN:
        claims = {_describe_claim(definitions.get(key)) for key in keys if contract.policy[key].effect is effect}
        return effect, f"effect unknown; {claims.pop() if len(claims) == 1 else 'the servers claim different things'}"
    if isinstance(step, AgentStep):
        return effect, _POSSIBLE[effect]
    if effect is Effect.DESTRUCTIVE and replaces:
        if file is None:
            return effect, "may replace a file"
        return (Effect.WRITE, "writes a new file") if file.kind == "missing" else (effect, "replaces a file")
    declared = definitions.get(step.key)
    hints = (declared.annotations if declared else None) or {}
    certain = effect is not Effect.DESTRUCTIVE or hints.get("destructiveHint") is True
    return effect, (_CERTAIN if certain else _POSSIBLE)[effect]


def _describe_claim(definition: ToolDefinition | None) -> str:
    """Return what a server that is not trusted claims about a tool, as words for a reader."""
    hints = (definition.annotations if definition else None) or {}
    if hints.get("readOnlyHint") is True:
        return "the server says it only reads"
    if hints.get("destructiveHint") is False:
        return "the server says it destroys nothing"
    return "the server says nothing about it"
