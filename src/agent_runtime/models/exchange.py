"""Asks an endpoint for one answer within bounds, and counts what it costs."""

import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import LARGER_CONTEXT, ModelAnswer, ModelRequest
from agent_runtime.domain.usage import BYTES_PER_TOKEN, Usage, estimate_tokens
from agent_runtime.models.answer_reader import ResponseInfo
from agent_runtime.models.dialect import Dialect
from agent_runtime.models.failures import Failure, Failures
from agent_runtime.models.repetition import LEAST_IN_FORM, LEAST_TEXT, RepetitionDetector
from agent_runtime.models.token_limits import AnswerLimits, NamedLimits, find_silent_cut, is_full_context

if TYPE_CHECKING:
    from agent_runtime.models.openai_agents import Endpoint

log = structlog.get_logger()

_MOST_CHANGES = 3
"""How often the limit of one request is changed after what the endpoint said of it."""

_CHARACTERS = 16
_MORE_CHARACTERS = 2000
"""The most characters per token, and those beside them, that a stream may have whose limit the endpoint ignores."""

_USED_UP = 0.9


@dataclass
class Exchange:
    """A question to a model with all the requests that it takes: what they have cost, and the facts of the last one."""

    request: ModelRequest
    spent: Usage = Usage()  # noqa: RUF009 - frozen
    info: ResponseInfo = field(default_factory=lambda: ResponseInfo(streamed=False))

    @property
    def hears_answer(self) -> bool:
        """Return whether the model has begun to write in the last request."""
        return self.info.length > 0

    def charge(self, answer: ModelAnswer | None) -> None:
        """Add what the last request cost: what the endpoint reports, else an estimate of what it got and sent."""
        if self.info.usage.tokens:
            self.spent += self.info.usage
        elif answer is not None:
            self.spent += Usage(self.question_tokens, estimate_tokens(json.dumps(answer.items)))
        elif self.hears_answer:
            self.spent += Usage(self.question_tokens, -(-self.info.length // BYTES_PER_TOKEN))

    @cached_property
    def question_tokens(self) -> int:
        """Return the estimated tokens of the question, with the definitions of tools."""
        shown = [*self.request.items, *(tool.input_schema for tool in self.request.tools)]
        return estimate_tokens(self.request.instructions, json.dumps(shown, ensure_ascii=False))


class Bounds:
    """The bounds of the answers of one model, with what was learned of it."""

    def __init__(self, settings: OpenAISettings, failures: Failures) -> None:
        self._settings = settings
        self._failures = failures
        self._limits = AnswerLimits(settings)

    async def ask(
        self, endpoint: "Endpoint", exchange: Exchange, request: ModelRequest, dialect: Dialect
    ) -> ModelAnswer:
        """Ask with a limit of tokens, and with another one if the endpoint refuses it or the thoughts fill it.

        `request` is the request of the exchange as the dialect has it. Raises: Failure.
        """
        limit = self._limits.choose(request)
        for _ in range(_MOST_CHANGES):
            try:
                return await self._ask_once(endpoint, exchange, request, dialect, limit)
            except Failure as failure:
                other = self._find_other_limit(limit, request, failure, thinking=exchange.info.only_thinks)
                if other is None:
                    raise
                log.info("model_asked_with_other_limit", limit=other, before=limit, said=failure.message)
                limit = other
        return await self._ask_once(endpoint, exchange, request, dialect, limit)

    def _find_other_limit(self, limit: int, request: ModelRequest, failure: Failure, *, thinking: bool) -> int | None:
        if failure.code == "model_answer_truncated" and thinking:
            self._limits.note_thoughts()
            more = self._limits.choose(request)
            return more if more > limit else None
        refused = not failure.reached or failure.code in {"model_context_overflow", "model_failed"}
        return self._limits.lower(limit, failure.named) if refused else None

    async def _ask_once(
        self, endpoint: "Endpoint", exchange: Exchange, request: ModelRequest, dialect: Dialect, limit: int
    ) -> ModelAnswer:
        repetition = RepetitionDetector(LEAST_TEXT if request.schema is None else LEAST_IN_FORM)
        info = exchange.info = ResponseInfo(dialect.streams, repetition=repetition)
        info.limit = _CHARACTERS * limit + _MORE_CHARACTERS
        answer = None
        try:
            answer = await endpoint.ask(replace(request, max_tokens=limit), dialect, info)
        except Failure as failure:
            if failure.code == "model_answer_truncated":
                raise self._explain_cut(limit, exchange) from failure
            raise
        else:
            if info.thinks:
                self._limits.note_thoughts()
            return self._note_silent_cut(answer, exchange)
        finally:
            exchange.charge(answer)

    def _explain_cut(self, limit: int, exchange: Exchange) -> Failure:
        """Return the failure for an answer that was cut off, with where it was and what to do."""
        usage, budget = exchange.info.usage, exchange.request.max_tokens
        if exchange.info.only_thinks:
            return self._failures.make_truncated(
                f"at {limit} tokens, all of them thoughts: have the model think less (a setting of the endpoint), or "
                "allow longer answers with openai.answer_tokens"
            )
        if 0 < usage.output_tokens < _USED_UP * limit and not exchange.info.thinks:
            return self._explain_early_cut(usage)
        if budget is not None and limit == budget:
            return self._failures.make_truncated(
                f"at {limit} tokens, which is all that the budget leaves: allow the task more tokens, or ask for less"
            )
        return self._failures.make_truncated(
            f"at its limit of {limit} tokens: ask for less, or allow longer answers with openai.answer_tokens"
        )

    def _explain_early_cut(self, usage: Usage) -> Failure:
        if not is_full_context(usage.tokens):
            return self._failures.make_truncated(
                f"by its endpoint after {usage.output_tokens} tokens: raise the endpoint's own limit of an answer, or "
                f"{LARGER_CONTEXT}"
            )
        failure = self._failures.make_truncated(
            f"after {usage.output_tokens} tokens, because its context of {usage.tokens} tokens is full: ask for less, "
            f"or {LARGER_CONTEXT}"
        )
        failure.named = NamedLimits(context=usage.tokens, question=usage.input_tokens)
        return failure

    def _note_silent_cut(self, answer: ModelAnswer, exchange: Exchange) -> ModelAnswer:
        read = find_silent_cut(exchange.question_tokens, exchange.info.usage.input_tokens)
        if read is None:
            return answer
        sent = exchange.question_tokens
        log.warning("model_prompt_cut", model=self._settings.model, read=read, sent=sent, remedy=LARGER_CONTEXT)
        return replace(answer, read_tokens=read)
