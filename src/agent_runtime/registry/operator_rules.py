"""Applies the operator's current rules to plans that were approved earlier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent_runtime.domain.contract import Contract, PinnedPolicy
from agent_runtime.domain.drafting import pin_policy
from agent_runtime.domain.stricter import TightenedContract, tighten_contract
from agent_runtime.domain.tools import HINTS, Denial, Tool, ToolDefinition, ToolServer, describe_tool

_MOST_KNOWN = 4096
"""The most tools whose rules are cached."""

Hints = tuple[bool | None, ...]
"""A tool's annotations by its server, in the order of `HINTS`."""


@dataclass(frozen=True, slots=True)
class _CurrentTool:
    """A tool with its rules in the current registry."""

    tool: Tool
    policy: PinnedPolicy
    disabled: bool


class OperatorRules:
    """The registry entries, by server id, as rules for calls."""

    def __init__(self, entries: Mapping[str, ToolServer]) -> None:
        self._entries = entries
        self._judge_cached = lru_cache(maxsize=_MOST_KNOWN)(self._judge)

    def denials(self, server_id: str) -> Sequence[Denial]:
        """Return the denials for a server."""
        entry = self._entries.get(server_id)
        return entry.deny if entry else ()

    def tighten_contract(
        self, contract: Contract, definitions: Mapping[str, ToolDefinition]
    ) -> TightenedContract | None:
        """Return the contract made as strict as the current registry; None where it is as strict already.

        `definitions` are the pinned ones, by `server/tool`.
        """
        known = {
            key: self._judge_cached(key, _read_hints(definitions[key])) for key in contract.policy if key in definitions
        }
        now = {key: one for key, one in known.items() if one is not None}
        if all(one.policy == contract.policy[key] and not one.disabled for key, one in now.items()):
            return None
        disabled = frozenset(key for key, one in now.items() if one.disabled)
        return tighten_contract(contract, {key: one.tool for key, one in now.items()}, disabled)

    def _judge(self, key: str, hints: Hints) -> _CurrentTool | None:
        server_id, _, name = key.partition("/")
        entry = self._entries.get(server_id)
        if entry is None:
            return None
        definition = ToolDefinition(name=name, annotations=dict(zip(HINTS, hints, strict=True)))
        tool = describe_tool(entry, definition)
        return _CurrentTool(
            tool, pin_policy(tool), disabled=not entry.enabled or entry.policy_for(name).enabled is False
        )


def _read_hints(definition: ToolDefinition) -> Hints:
    said = definition.annotations or {}
    return tuple(said[hint] if isinstance(said.get(hint), bool) else None for hint in HINTS)
