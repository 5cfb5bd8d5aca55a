"""The calls of a task as front ends are told them: each is announced once, and has one result."""

from collections.abc import Iterator

from agent_runtime.domain import events as ev

Place = tuple[str, int | None, int | None]
"""A step, and for a call that a model asks for, the turn and the index."""


class ToldCalls:
    """Follows the calls of a task. A repetition of a call without a result is told as that call: the protocols of front
    ends have no word for it, and a call without a result looks as if it were still going on.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        """The tool of each call, as SERVER.TOOL."""
        self._last: dict[Place, str] = {}
        """The call that was announced last at each place."""
        self._repeated: dict[str, str] = {}
        """The call that was announced, by the id of its repetition."""
        self._settled: set[str] = set()
        """The calls that have a result."""
        self._sent: set[str] = set()
        """The calls that were sent, or may have been."""

    def announce(self, event: ev.ToolCalled | ev.CallApprovalRequested) -> bool:
        """Return whether this call is new. One that a person was asked about before it is sent is not, nor is a
        repetition.
        """
        place = (event.step_id, event.turn, event.index)
        before = self._last.get(place)
        attempt = event.attempt if isinstance(event, ev.ToolCalled) else 0
        if attempt:
            self._sent.add(event.call_id)
        if event.call_id in self._names:
            return False
        if attempt > 1 and before and before not in self._settled:
            self._repeated[event.call_id] = before
            return False
        self._last[place] = event.call_id
        self._names[event.call_id] = f"{event.server}.{event.tool}"
        return True

    def explain_unanswered(self, event: ev.Event) -> Iterator[tuple[str, str]]:
        """Yield the ids of the calls that have no result after this event and get none, each with the words instead."""
        if isinstance(event, ev.ToolDenied):
            told = self._last.get((event.step_id, event.turn, event.index))
            open_calls = [told] if told and told not in self._sent else []  # one that was sent may still return
            why = event.message
        elif isinstance(event, ev.StepFailed | ev.StepSkipped):
            open_calls = [told for place, told in self._last.items() if place[0] == event.step_id]
            why = f"Step {event.step_id} {'failed' if isinstance(event, ev.StepFailed) else 'was skipped'}."
        elif event.ends_task:
            open_calls = list(self._last.values())
            why = f"The task {'was cancelled' if isinstance(event, ev.TaskCancelled) else 'has ended'}."
        else:
            return
        for told in open_calls:
            if told not in self._settled:
                known = (
                    "It is not known whether this call took effect" if told in self._sent else "This call was not sent"
                )
                yield told, f"{known}. {why}"

    def settle(self, call_id: str) -> str | None:
        """Return the id with which the call was announced, or None if it was not, or has a result."""
        told = self._repeated.get(call_id, call_id)
        if told not in self._names or told in self._settled:
            return None
        self._settled.add(told)
        return told

    def find_tool(self, told: str) -> str:
        """Return the tool of an announced call."""
        return self._names[told]
