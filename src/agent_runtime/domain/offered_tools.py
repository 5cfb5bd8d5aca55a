"""The tools that a plan may use, with what their servers are."""

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
    """The tools that a plan is made with, and what their servers are, both at one moment: the registry may change."""

    tools: Mapping[str, Tool]
    unusable: Mapping[str, str]
    identities: Identities

    @property
    def has_model(self) -> bool:
        """True if a plan may have agent steps."""
        return self.identities.model is not None

    def find_faults(self, plan: Plan, limits: Limits) -> list[Fault]:
        """Return what keeps a plan from being carried out with them."""
        return list(find_faults(plan, limits, self.tools, agent_steps=self.has_model, unusable=self.unusable))

    def select_pinned(self, contract: Contract) -> dict[str, ToolDefinition]:
        """Return the definitions that the contract pins."""
        return {tool.key: tool.definition for tool in self.tools.values() if tool.key in contract.pins}

    def select_facts(self, contract: Contract) -> dict[str, JsonObject]:
        """Return what the servers of the contract are."""
        return {name: self.identities.servers[name].facts for name in contract.servers}
