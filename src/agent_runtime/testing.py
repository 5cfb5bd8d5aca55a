"""Scripted stand-ins with the shape of our ports, for tests without a network."""

from collections.abc import Sequence

from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.events import ModelCall
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, ModelStatus
from agent_runtime.domain.usage import Usage


def text_answer(text: str, *, usage: Usage | None = None, calls: Sequence[ModelCall] = ()) -> ModelAnswer:
    """Return an answer with this text. `usage` defaults to 100 tokens in and 10 out."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    spent = Usage(input_tokens=100, output_tokens=10) if usage is None else usage
    return ModelAnswer(items=(item,), text=text, calls=tuple(calls), usage=spent)


class ScriptedLanguageModel:
    """A `LanguageModel` that gives these answers in turn: a text, a whole answer, or an error to raise.

    `requests` are the requests so far. If there are more of them than answers, it raises a ModelError.
    """

    def __init__(self, answers: Sequence[str | ModelAnswer | ModelError]) -> None:
        self._answers = list(answers)
        self.requests: list[ModelRequest] = []

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        self.requests.append(request)
        if len(self.requests) > len(self._answers):
            raise ModelError(f"The script has {len(self._answers)} answers, and this is one request more.")
        given = self._answers[len(self.requests) - 1]
        if isinstance(given, ModelError):
            raise given
        answer = text_answer(given) if isinstance(given, str) else given
        for piece in answer.text.splitlines(keepends=True):
            request.on_text(piece)
        return answer

    async def identify(self) -> str:
        return "scripted"

    def status(self) -> ModelStatus:
        return ModelStatus(
            endpoint="scripted", model="scripted", api="responses", circuit="closed", output=None, last_error=None
        )
