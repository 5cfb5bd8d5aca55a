"""The registry that is in force: what each entry is, and what the operator says of its tools."""

from collections.abc import Iterable, Mapping

from agent_runtime.domain.contract import PinnedModel
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.tools import ToolServer
from agent_runtime.registry.operator_rules import OperatorRules
from agent_runtime.registry.resolved import ResolvedEntry


class CurrentRegistry:
    """The entries in force, by id, with what follows from them. A reload replaces all of it at once.

    `identities`: what the servers and the model of agent steps are now. `rules`: what the operator says now.
    """

    entries: Mapping[str, ResolvedEntry]
    identities: Identities
    rules: OperatorRules

    def __init__(self, entries: Iterable[ResolvedEntry] = (), model: PinnedModel | None = None) -> None:
        self._model = model
        self._words: dict[str, ToolServer] = {}
        self.replace(entries)

    def replace(self, entries: Iterable[ResolvedEntry]) -> None:
        """Put these entries in force.

        A run may go on with a server that is not among them any more: the last word on that one still holds.
        """
        self.entries = {entry.server.id: entry for entry in entries}
        self.identities = Identities({name: entry.identity for name, entry in self.entries.items()}, self._model)
        self._words |= {name: entry.server for name, entry in self.entries.items()}
        self.rules = OperatorRules(dict(self._words))
