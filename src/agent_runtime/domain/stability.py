"""Detect tools whose definitions differ between two listings of a server; no plan can be approved for them (G6)."""

from collections.abc import Iterable, Mapping

from agent_runtime.domain.identity import compare_definitions
from agent_runtime.domain.tools import ToolDefinition


class Stability:
    """Compares consecutive tool lists of one server.

    `unstable` maps the name of each unstable tool to a description of the difference.
    """

    def __init__(self) -> None:
        self._stable: dict[str, str] = {}
        self._latest: dict[str, str] = {}
        self.unstable: Mapping[str, str] = {}

    def is_known(self, definitions: Iterable[ToolDefinition]) -> bool:
        """Return whether each of these definitions was equal in two lists."""
        return all(self._stable.get(one.name) == one.pin for one in definitions)

    def resume(self, definitions: Iterable[ToolDefinition], unstable: Mapping[str, str], *, known: bool) -> None:
        """Go on from a list that another process has read. `known`: it has compared two lists.

        Raises: ValueError where JSON cannot carry a definition exactly.
        """
        self.unstable = unstable
        self._latest = {one.name: one.pin for one in definitions}
        self._stable = {name: pin for name, pin in self._latest.items() if name not in unstable} if known else {}

    def settle(self, definitions: Iterable[ToolDefinition]) -> None:
        """Read one more list. A tool that is as in the previous list changed only once and is no longer unstable.

        Raises: ValueError where JSON cannot carry a definition exactly.
        """
        if self.unstable:
            settled = {one.name for one in definitions if self._latest.get(one.name) == one.pin}
            self.unstable = {name: how for name, how in self.unstable.items() if name not in settled}

    def compare(self, first: Iterable[ToolDefinition], second: Iterable[ToolDefinition]) -> bool:
        """Compare two lists; return whether the set of unstable tools has changed.

        A first difference may be a single change; `settle` decides with the next list.
        Raises: ValueError where JSON cannot carry a definition exactly.
        """
        again = {one.name: one for one in second}
        both = [one for one in first if one.name in again]
        differences = {one.name: " ".join(compare_definitions(one, again[one.name])) for one in both}
        before, self.unstable = self.unstable, {name: how for name, how in differences.items() if how}
        self._latest = {one.name: again[one.name].pin for one in both}
        self._stable = {one.name: one.pin for one in both if not differences[one.name]}
        return before.keys() != self.unstable.keys()
