"""The current registry: the identity of each entry, and the operator's rules for its tools."""

from collections.abc import Callable, Iterable, Mapping

from agent_runtime.domain.entries import Entries, digest_model
from agent_runtime.domain.identity import Identities
from agent_runtime.domain.tools import ToolServer
from agent_runtime.registry.model_identity import ModelIdentity
from agent_runtime.registry.operator_rules import OperatorRules
from agent_runtime.registry.resolved import ResolvedEntry


class CurrentRegistry:
    """The current entries, by id, with their identities and rules. A reload replaces everything at once.

    `identities`: those of the servers and of the model of agent steps. `rules`: the operator's current ones.
    """

    entries: Mapping[str, ResolvedEntry]
    identities: Identities
    rules: OperatorRules

    def __init__(self, entries: Iterable[ResolvedEntry] = (), model: ModelIdentity | None = None) -> None:
        self._model = model
        self._words: dict[str, ToolServer] = {}
        self._tell_change: Callable[[], None] = _ignore
        self.replace(entries)

    def replace(self, entries: Iterable[ResolvedEntry]) -> None:
        """Replace the current entries.

        A run may still use a server that was removed. The last rules for that server remain valid.
        """
        self.entries = {entry.server.id: entry for entry in entries}
        self.identities = self._identify()
        self._words |= {name: entry.server for name, entry in self.entries.items()}
        self.rules = OperatorRules(dict(self._words))
        self._tell_change()

    def on_change(self, tell: Callable[[], None]) -> None:
        """Register `tell`, which is called after each change of the entries or of the model."""
        self._tell_change = tell

    @property
    def usable(self) -> Entries:
        """The entries and the model that plans can use here."""
        usable = [entry for entry in self.entries.values() if entry.server.enabled and entry.problem is None]
        servers = {entry.server.id: entry.identity.digest for entry in usable}
        return Entries(servers=servers, model=digest_model(self.identities.model))

    @property
    def asks_for_model(self) -> bool:
        """Return whether the endpoint knows which model there is, and not the settings."""
        return self._model is not None and self._model.is_asked_for

    async def identify_model(self) -> None:
        """Find out which model there is now, where the settings name none; see `ModelIdentity.refresh`."""
        if self._model is None:
            return
        await self._model.refresh()
        now = self._identify()
        if now != self.identities:
            self.identities = now
            self._tell_change()

    def _identify(self) -> Identities:
        servers = {name: entry.identity for name, entry in self.entries.items()}
        if self._model is None:
            return Identities(servers)
        return Identities(servers, self._model.pinned, self._model.problem)


def _ignore() -> None:
    """Do nothing until somebody wants to know of changes."""
