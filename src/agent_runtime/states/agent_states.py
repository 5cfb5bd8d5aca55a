"""The verbs on states of front ends, each for a caller."""

import json
import re
from datetime import UTC, datetime, timedelta

import structlog

from agent_runtime.domain.caller import Caller
from agent_runtime.domain.errors import Fault, InvalidInputError, StateNotFoundError, StateTooLargeError
from agent_runtime.domain.values import JsonValue
from agent_runtime.live.sweeping import LONGEST_SLEEP_S, keep_sweeping
from agent_runtime.states.saved import Condition, SavedState, StateStore, allow_any

log = structlog.get_logger()

_NAME = re.compile(r"[\x21-\x7e]{1,255}")
_AT_ONCE = 100


class AgentStates:
    """All operations on states. A state expires `keep_s` seconds after it was last saved; with None, never.

    `state_bytes` limits the length of its JSON text.
    """

    def __init__(self, store: StateStore, state_bytes: int, keep_s: float | None) -> None:
        self._store = store
        self._state_bytes = state_bytes
        self._keep = None if keep_s is None else timedelta(seconds=keep_s)

    @property
    def _horizon(self) -> datetime | None:
        return None if self._keep is None else datetime.now(UTC) - self._keep

    async def find(self, agent: str, thread: str, caller: Caller) -> SavedState | None:
        """Return the state; None if there is none. Raises: InvalidInputError, StoreUnavailableError."""
        _check_names(agent, thread)
        return await self._store.load(agent, thread, self._horizon)

    async def load(self, agent: str, thread: str, caller: Caller) -> SavedState:
        """Return the state. Raises: InvalidInputError, StateNotFoundError, StoreUnavailableError."""
        state = await self.find(agent, thread, caller)
        if state is None:
            raise StateNotFoundError(agent, thread)
        return state

    async def save(
        self, agent: str, thread: str, value: JsonValue, caller: Caller, condition: Condition = allow_any
    ) -> SavedState:
        """Save a state in place of the current one, where `condition` allows it, and return its new revision.

        Raises: InvalidInputError, StateTooLargeError, StateChangedError, StoreUnavailableError.
        """
        _check_names(agent, thread)
        data = self._encode(value)
        state = await self._store.save(agent, thread, data, condition, self._horizon)
        log.info("state_saved", agent=agent, thread=thread, revision=state.revision, actor=caller.name)
        return state

    async def delete(self, agent: str, thread: str, caller: Caller, condition: Condition = allow_any) -> None:
        """Delete a state. Raises: InvalidInputError, StateNotFoundError, StateChangedError, StoreUnavailableError."""
        _check_names(agent, thread)
        if not await self._store.delete(agent, thread, condition, self._horizon):
            raise StateNotFoundError(agent, thread)
        log.info("state_deleted", agent=agent, thread=thread, actor=caller.name)

    async def watch(self) -> None:
        """Delete states as they expire, until cancelled. Retries while the store is unavailable."""
        if self._keep is not None:
            await keep_sweeping(self._sweep, waits="states_wait_for_store", failed="state_expiry_failed")

    async def _sweep(self) -> float:
        while await self._store.delete_expired(self._horizon or datetime.now(UTC), _AT_ONCE) == _AT_ONCE:
            pass
        return min(LONGEST_SLEEP_S, self._keep.total_seconds() if self._keep else LONGEST_SLEEP_S)

    def _encode(self, value: JsonValue) -> str:
        if not isinstance(value, dict):
            raise InvalidInputError([Fault("state", "A state must be a JSON object.")])
        try:
            data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            size = len(data.encode())
        except ValueError as error:
            raise InvalidInputError([Fault("state", f"JSON cannot hold it exactly: {error}.")]) from error
        if size > self._state_bytes:
            raise StateTooLargeError(
                f"The state has {size} bytes; the limit is {self._state_bytes} (limits.state_bytes). "
                "Keep large data elsewhere, and its address in the state."
            )
        return data


def _check_names(agent: str, thread: str) -> None:
    faults = [
        Fault(field, "It must be 1 to 255 visible ASCII characters, no spaces.")
        for field, name in (("agent", agent), ("thread", thread))
        if not _NAME.fullmatch(name)
    ]
    if faults:
        raise InvalidInputError(faults)
