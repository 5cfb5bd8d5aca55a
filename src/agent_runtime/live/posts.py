"""Events that other tasks hand to a run to write."""

from collections.abc import Callable, Collection

import structlog

from agent_runtime.domain.errors import IllegalTransitionError
from agent_runtime.domain.events import Event

log = structlog.get_logger()


class Posts:
    """Events that wait for the next turn of a run. They stay until they are written."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def add(self, event: Event) -> None:
        self._events.append(event)

    def stage(self, stage: Callable[[Event], None]) -> None:
        """Stage the events that the journal allows now; drop the others."""
        for event in [*self._events]:
            try:
                stage(event)
            except IllegalTransitionError as refusal:
                log.info("post_dropped", event_type=event.type, reason=str(refusal))
                self._events.remove(event)

    def forget(self, written: Collection[Event]) -> None:
        """Forget the events that are written."""
        self._events = [event for event in self._events if event not in written]
