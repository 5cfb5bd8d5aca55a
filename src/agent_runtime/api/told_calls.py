"""The calls of a task as front ends are told them: each is announced once, and has one result."""

from agent_runtime.domain import events as ev


class ToldCalls:
    """Follows the calls of a task. A repetition of a call without a result is told as that call: the protocols of front
    ends have no word for it, and a call without a result looks as if it were still going on.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        """The tool of each call, as SERVER.TOOL."""
        self._last: dict[tuple[str, int | None, int | None], str] = {}
        """The call that was announced last for each step, or for each call of a model's turn."""
        self._repeated: dict[str, str] = {}
        """The call that was announced, by the id of its repetition."""
        self._settled: set[str] = set()
        """The calls that have a result."""

    def announce(self, event: ev.ToolCalled | ev.CallApprovalRequested) -> bool:
        """Return whether this call is new. One that a person was asked about before it is sent is not, nor is a
        repetition.
        """
        if event.call_id in self._names:
            return False
        place = (event.step_id, event.turn, event.index)
        before = self._last.get(place)
        if isinstance(event, ev.ToolCalled) and event.attempt > 1 and before and before not in self._settled:
            self._repeated[event.call_id] = before
            return False
        self._last[place] = event.call_id
        self._names[event.call_id] = f"{event.server}.{event.tool}"
        return True

    def settle(self, call_id: str) -> str | None:
        """Return the id with which the call was announced, or None if it was not, or has a result."""
        told = self._repeated.get(call_id, call_id)
        if told not in self._names or told in self._settled:
            return None
        self._settled.add(told)
        return told

    def name(self, told: str) -> str:
        """Return the tool of an announced call."""
        return self._names[told]
