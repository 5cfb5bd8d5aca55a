"""Calls in several rounds: a server of 2026-07-28 answers that it needs input, and gets the same call again with it.

The answer carries the id of the call, so each round has a definite outcome. The rounds are one call to everybody else.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from mcp_types import CallToolRequest, ElicitResult, InputResponses

from agent_runtime.domain.elicitation import DECLINED, Question, Reply, UnreadableQuestionError, read_question
from agent_runtime.domain.values import JsonObject, JsonValue

MOST_ROUNDS = 16
"""The most rounds of one call."""

SHORT_PAUSE_S = 0.1
"""The pause before the next round if the server asks nothing."""


class UnsupportedInputError(Exception):
    """A server needs input that is not given here; the message names it."""


@dataclass(frozen=True, slots=True)
class NeededInput:
    """The requests of a server by its own keys, and the state that it wants back."""

    requests: Mapping[str, JsonValue]
    state: str | None


def read_needed_input(answer: JsonObject) -> NeededInput | None:
    """Return the input that a server needs to go on with a call; None if it has completed the call."""
    if answer.get("resultType") != "input_required":
        return None
    requests, state = answer.get("inputRequests"), answer.get("requestState")
    return NeededInput(requests if isinstance(requests, dict) else {}, state if isinstance(state, str) else None)


async def collect_input(
    needed: NeededInput, rounds: int, ask: Callable[[Question], Awaitable[Reply]]
) -> InputResponses | None:
    """Return the answers to all requests, asked one after the other; None if there are none.

    A question that cannot be read is declined. Raises: UnsupportedInputError, also after `MOST_ROUNDS` rounds.
    """
    if rounds >= MOST_ROUNDS:
        raise UnsupportedInputError(f"it is not done after {MOST_ROUNDS} rounds")
    responses: InputResponses = {}
    for key, request in needed.requests.items():
        method = request.get("method") if isinstance(request, dict) else None
        if not isinstance(request, dict) or method != "elicitation/create":
            raise UnsupportedInputError(f"it needs {method or 'input'}, which is not supported here")
        params = request.get("params")
        try:
            reply = await ask(read_question(params if isinstance(params, dict) else {}))
        except UnreadableQuestionError:
            reply = DECLINED
        responses[key] = ElicitResult(action=reply.action, content=reply.content)
    return responses or None


def make_next_round(request: CallToolRequest, needed: NeededInput, responses: InputResponses | None) -> CallToolRequest:
    """Return the same call with the input, and the server's state unchanged."""
    update = {"input_responses": responses, "request_state": needed.state}
    return request.model_copy(update={"params": request.params.model_copy(update=update)})
