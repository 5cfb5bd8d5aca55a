"""The input of an AG-UI run: what it asks for, and why it is refused.

It needs the library of the protocol, so doors import it with their first request.
"""

from ag_ui.core import Message, RunAgentInput, TextPart, UserMessage
from pydantic import ValidationError

from agent_runtime.api.bodies import MOST_THREAD_CHARACTERS
from agent_runtime.api.faults import faults_of
from agent_runtime.api.problems import status_of
from agent_runtime.domain.errors import AgentRuntimeError, Fault, InvalidInputError, ScopeMissingError
from agent_runtime.domain.values import JsonValue


class RunRefusedError(AgentRuntimeError):
    """A run that cannot be: its client is told by RUN_ERROR, and nothing has changed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_input(value: JsonValue) -> RunAgentInput:
    """Return the validated input of a run. Raises: InvalidInputError with every fault."""
    try:
        given = RunAgentInput.model_validate(value)
    except ValidationError as error:
        raise InvalidInputError(faults_of(error.errors(include_url=False, include_input=False))) from error
    faults = [
        Fault(field, f"It must have 1 to {MOST_THREAD_CHARACTERS} characters.")
        for field, text in (("threadId", given.thread_id), ("runId", given.run_id))
        if not 0 < len(text) <= MOST_THREAD_CHARACTERS
    ]
    if faults:
        raise InvalidInputError(faults)
    return given


def find_prompt(messages: list[Message]) -> tuple[str, str] | None:
    """Return the id and the text of the last message of the user; None if there is none. Raises: InvalidInputError."""
    for message in reversed(messages):
        if isinstance(message, UserMessage):
            content = message.content
            parts = content if isinstance(content, list) else [TextPart(text=content)]
            text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
            if not 0 < len(message.id) <= MOST_THREAD_CHARACTERS:
                raise InvalidInputError(
                    [Fault("messages", f"The id of a message must have 1 to {MOST_THREAD_CHARACTERS} characters.")]
                )
            return message.id, text
    return None


def refuse_answers(error: AgentRuntimeError) -> Exception:
    """Return the error of a run for one of a decision; the error itself if it is not about what was sent."""
    if isinstance(error, RunRefusedError | ScopeMissingError):
        return error
    if status_of(error) >= 500:  # noqa: PLR2004 - of HTTP: the store is away, for example
        return error
    if isinstance(error, InvalidInputError):
        faults = "; ".join(f"{fault.field}: {fault.message}" for fault in error.faults[:10])
        return RunRefusedError(error.code, f"The answer cannot be used: {faults}")
    return RunRefusedError(error.code, str(error))
