"""The decisions that a client makes by a message: over a WebSocket, and in the process of a command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent_runtime.api.bodies import (
    AnswerRequest,
    ApproveCallRequest,
    ApproveRequest,
    Body,
    CallDecisionRequest,
    CancelRequest,
    RejectRequest,
    ResolveRequest,
    ReviseRequest,
    ShortText,
)
from agent_runtime.domain.approval import (
    Answer,
    Approve,
    ApproveCall,
    Cancel,
    Decision,
    DenyCall,
    Reject,
    Resolve,
    Revise,
)
from agent_runtime.domain.values import JsonObject


class _CallMessage(CallDecisionRequest):
    call_id: ShortText


class _ApproveCallMessage(ApproveCallRequest):
    call_id: ShortText


class _AnswerMessage(AnswerRequest):
    question_id: ShortText


@dataclass(frozen=True, slots=True)
class DecisionMessage:
    """A kind of decision: the scopes of which its caller needs one, its fields, and the decision that they make."""

    scopes: tuple[str, ...]
    fields: type[Body]
    make: Callable[[Any], Decision]

    def read(self, fields: JsonObject) -> Decision:
        """Return the decision of a message with these fields. Raises: InvalidInputError."""
        return self.make(self.fields.read(fields))


DECISIONS: Mapping[str, DecisionMessage] = {
    "approve": DecisionMessage(
        ("approve",), ApproveRequest, lambda given: Approve(digest=given.plan_digest, comment=given.comment)
    ),
    "reject": DecisionMessage(("approve",), RejectRequest, lambda given: Reject(**dict(given))),
    "revise": DecisionMessage(("submit", "approve"), ReviseRequest, lambda given: Revise(**dict(given))),
    "cancel": DecisionMessage(("submit", "approve"), CancelRequest, lambda given: Cancel(**dict(given))),
    "resolve": DecisionMessage(("approve",), ResolveRequest, lambda given: Resolve(**dict(given))),
    "approve_call": DecisionMessage(("approve",), _ApproveCallMessage, lambda given: ApproveCall(**dict(given))),
    "deny_call": DecisionMessage(("approve",), _CallMessage, lambda given: DenyCall(**dict(given))),
    "answer": DecisionMessage(("approve",), _AnswerMessage, lambda given: Answer(**dict(given))),
}
"""The decisions by the `type` of their message; their scopes are those of the same decisions over REST."""
