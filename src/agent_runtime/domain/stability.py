"""Tools whose definitions differ from one list of their server to the next: no plan can be approved for them (G6)."""

from collections.abc import Iterable, Mapping

from agent_runtime.domain.identity import compare_definitions
from agent_runtime.domain.tools import ToolDefinition


class Stability:
    """What two lists of one server, one right after the other, had in common and what not, by the names of tools.

    `unstable` says how a definition differed in them.
    """

    def __init__(self) -> None:
        self._stable: dict[str, str] = {}
        self._latest: dict[str, str] = {}
        self.unstable: Mapping[str, str] = {}

    def is_known(self, definitions: Iterable[ToolDefinition]) -> bool:
        """Whether each of these was the same in two lists."""
        return all(self._stable.get(one.name) == one.pin for one in definitions)

    def settle(self, definitions: Iterable[ToolDefinition]) -> None:
        """Take a further list: what is in it as it was in the latest one has only changed once, and is not unstable.

        Raises: ValueError where JSON cannot carry a definition exactly.
        """
        if self.unstable:
            settled = {one.name for one in definitions if self._latest.get(one.name) == one.pin}
            self.unstable = {name: how for name, how in self.unstable.items() if name not in settled}

    def compare(self, first: Iterable[ToolDefinition], second: Iterable[ToolDefinition]) -> bool:
        """Take two lists; return whether other tools than before are unstable.

        What differs for the first time may only have changed, which `settle` says after a further list.
        Raises: ValueError where JSON cannot carry a definition exactly.
        """
        again = {one.name: one for one in second}
        both = [one for one in first if one.name in again]
        differences = {one.name: " ".join(compare_definitions(one, again[one.name])) for one in both}
        before, self.unstable = self.unstable, {name: how for name, how in differences.items() if how}
        self._latest = {one.name: again[one.name].pin for one in both}
        self._stable = {one.name: one.pin for one in both if not differences[one.name]}
        return before.keys() != self.unstable.keys()
