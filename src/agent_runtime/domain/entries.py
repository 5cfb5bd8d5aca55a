"""The registry entries that a plan is pinned to, or that a worker has."""

from collections.abc import Mapping

from agent_runtime.domain.contract import Contract, PinnedModel
from agent_runtime.domain.values import Value, digest


class Entries(Value):
    """The digests of the identities of servers, by the ids of their entries, and of a language model."""

    servers: Mapping[str, str] = {}
    model: str | None = None

    def include(self, needed: "Entries") -> bool:
        """Return whether these entries are enough for whoever needs those."""
        return needed.servers.items() <= self.servers.items() and needed.model in {None, self.model}


def list_pinned(contract: Contract) -> Entries:
    """Return the entries that a contract is pinned to. Contracts of form 1 name none."""
    return Entries(servers=contract.servers, model=digest_model(contract.model))


def digest_model(model: PinnedModel | None) -> str | None:
    """Return a digest of everything that identifies a model; None for none."""
    return None if model is None else digest(model.model_dump(mode="json"))
