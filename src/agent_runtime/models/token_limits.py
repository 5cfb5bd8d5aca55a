"""Limits of tokens: those that endpoints name in their errors, and the one that each request gets."""

import re
from dataclasses import dataclass

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import ModelRequest

MOST_ANSWER_TOKENS = 16_384
"""The limit of an answer, thoughts included."""

PLAN_TOKENS = 4_096
"""The limit of a plan where the model writes no thoughts, off OpenAI."""

LEAST_ANSWER_TOKENS = 256
"""The shortest answer that is worth asking for beside a question that nearly fills the context."""

_LEAST_CUT = 1000
_NEAR = 8
_MOST = 2**31
_COUNT = r"[\"'`(]*\s*(?:only |about )?(\d[\d,_]{0,12})"

_CONTEXT = re.compile(
    rf"\bn_ctx[\"'\\]*\s*[:=]\s*{_COUNT}"
    rf"|available context size\s*{_COUNT}"
    rf"|(?:maximum |model'?s )?context (?:length|window|size)(?: of| is|:)*\s*{_COUNT}"
    rf"|maximum model length of\s*{_COUNT}"
    rf"|maximum number of tokens allowed\s*{_COUNT}"
    rf"|model with {_COUNT} maximum context length"
    rf"|max_new_tokens`? must be <=\s*{_COUNT}"
    rf"|tokens > {_COUNT} maximum",
    re.IGNORECASE,
)
"""llama.cpp (twice); OpenAI, vLLM, LM Studio, llama-cpp-python and Ollama; vLLM; Gemini; Mistral; TGI; Anthropic."""

_QUESTION = re.compile(
    rf"\bn_prompt_tokens[\"'\\]*\s*[:=]\s*{_COUNT}"
    rf"|request\s*{_COUNT} tokens\) exceeds"
    rf"|{_COUNT} (?:in the messages|of text input|`inputs` tokens|(?:text |prompt )?input tokens)"
    rf"|messages resulted in {_COUNT}"
    rf"|prompt (?:is too long:|contains)\s*{_COUNT}"
    rf"|prompt \(length\s*{_COUNT}"
    rf"|keep the first {_COUNT}"
    rf"|requested tokens\s*{_COUNT}"
    rf"|input token count\s*{_COUNT}",
    re.IGNORECASE,
)
"""llama.cpp (twice); OpenAI and llama-cpp-python, OpenRouter, TGI, vLLM; OpenAI; Ollama, Anthropic and Mistral; vLLM;
LM Studio; llama-cpp-python; Gemini.
"""

_ANSWER = re.compile(
    rf"supports at most {_COUNT} (?:completion|output) tokens"
    rf"|max(?:imum)?_(?:completion_|output_)?tokens`?(?: is| should be)?:?\s*\[1, *{_COUNT}\]"
    rf"|max_(?:completion_)?tokens`? must be less than or equal to {_COUNT}"
    rf"|> {_COUNT}, which is the maximum allowed number of output tokens",
    re.IGNORECASE,
)
"""OpenAI; DeepSeek and Qwen; Groq; Anthropic."""


@dataclass(frozen=True, slots=True)
class NamedLimits:
    """The numbers of tokens that an error names, each None if it does not.

    `context`: how many question and answer may have together. `question`: how many the question has. `answer`: how many
    an answer may have at most, whatever was asked.
    """

    context: int | None = None
    question: int | None = None
    answer: int | None = None


def read_named_limits(said: str) -> NamedLimits:
    """Return the limits that the words of an error name."""
    return NamedLimits(_find(_CONTEXT, said), _find(_QUESTION, said), _find(_ANSWER, said))


def _find(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    digits = next((group for group in found.groups() if group), "") if found else ""
    count = int(re.sub(r"\D", "", digits) or 0)
    return count if 0 < count < _MOST else None


def find_silent_cut(estimated: int, reported: int) -> int | None:
    """Return how many tokens of a question the model read, if its endpoint seems to have cut the rest; else None.

    `estimated` is our estimate, which errs on the high side: real counts are seldom under 0.6 of it. The question is
    cut if the count is under 0.4 of it, or under 0.75 and the size of a context (a power of two, give or take 8).
    Counts under 1,000 say nothing: some endpoints leave out what they had in their cache.
    """
    if reported < _LEAST_CUT or reported >= estimated * 0.75:
        return None
    near_context = min(abs(reported - 2**power) for power in range(10, 21)) <= _NEAR
    return reported if near_context or reported < estimated * 0.4 else None


def is_full_context(used: int) -> bool:
    """Return whether so many tokens of question and answer are likely a whole context: a multiple of 256, or nearly."""
    return used >= _LEAST_CUT and min(used % 256, -used % 256) <= _NEAR // 2


class AnswerLimits:
    """The limit of tokens for each answer of one model, with what was learned of the model.

    It is `openai.answer_tokens` if that is set. Else it is 16,384, and 4,096 for an answer to a schema (a plan) from
    another endpoint than OpenAI's, until the model is known to think: then its thoughts count in the limit. A smaller
    limit of the request (what a budget leaves) or one that the endpoint has named holds as well.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        self._set = settings.answer_tokens
        self._at_openai = settings.at_openai
        self._thinks = False
        self._named: int | None = None

    def choose(self, request: ModelRequest) -> int:
        """Return the limit for the answer to this request."""
        short = request.schema is not None and not (self._at_openai or self._thinks)
        limit = self._set or (PLAN_TOKENS if short else MOST_ANSWER_TOKENS)
        return min(limit, self._named or limit, request.max_tokens or limit)

    def note_thoughts(self) -> None:
        """Take note that the model thinks before it answers, which makes its plans longer."""
        self._thinks = True

    def lower(self, limit: int, named: NamedLimits) -> int | None:
        """Return the limit to ask with after an endpoint refused this one; None if that is not what it refused.

        What the endpoint says of all answers is kept. What is left of the context beside this question is not.
        """
        if named.answer is not None and named.answer < limit:
            self._named = named.answer
            return named.answer
        if named.context is None or named.question is None:
            return None
        left = (named.context - named.question) * 15 // 16  # it may count the next request a little higher
        return left if min(LEAST_ANSWER_TOKENS, limit) <= left < limit else None
