"""The tools that a plan may use, with the identities of their servers."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent_runtime.domain.contract import Contract, Limits
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.errors import Fault
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.tools import Tool, ToolDefinition
from agent_runtime.domain.values import JsonObject


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools for a plan and the identities of their servers, both of one moment, since the registry may change."""

    tools: Mapping[str, Tool]
    unusable: Mapping[str, str]
    identities: Identities

    @property
    def has_model(self) -> bool:
        """True if a plan may have agent steps."""
        return self.identities.model is not None

    def find_faults(self, plan: Plan, limits: Limits) -> list[Fault]:
        """Return the faults of a plan that uses these tools."""
        no_model = self.identities.no_model
        return list(
            find_faults(plan, limits, self.tools, agent_steps=self.has_model, no_model=no_model, unusable=self.unusable)
        )

    def select_pinned(self, contract: Contract) -> dict[str, ToolDefinition]:
        """Return the definitions that the contract pins, by `server/tool`."""
        return {tool.key: tool.definition for tool in self.tools.values() if tool.key in contract.pins}

    def select_facts(self, contract: Contract) -> dict[str, JsonObject]:
        """Return the identity facts of the contract's servers, by id."""
        return {name: self.identities.servers[name].facts for name in contract.servers}
