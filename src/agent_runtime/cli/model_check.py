"""The doctor's look at the language model: one finding for each thing that plans and agent steps need of it.

Every question is made up here. No MCP server is called, and nothing that the model proposes is done.
"""

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from pydantic_core import from_json

from agent_runtime.bootstrap import make_model
from agent_runtime.cli.findings import Finding
from agent_runtime.config import OpenAISettings, Secrets, Settings
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.errors import ConfigurationError, ModelError
from agent_runtime.domain.model_requests import LARGER_CONTEXT, ModelAnswer, ModelRequest, OfferedTool
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.usage import estimate_tokens
from agent_runtime.importing import one_import_at_a_time
from agent_runtime.planners.choosing import choose_planner
from agent_runtime.planners.model.json_answer import NoJsonError, find_pieces
from agent_runtime.planners.model.model_size import shows_all_fields
from agent_runtime.planners.model.planner import ModelPlanner
from agent_runtime.planners.model.prompt import build_instructions
from agent_runtime.planners.model.tool_listing import list_tools
from agent_runtime.services.ports import LanguageModel
from agent_runtime.text.escaping import one_line

ANSWER_S = 90.0
"""Seconds that one answer may take; a local model may have to be loaded first."""

_ANSWER_TOKENS = 2048
"""The token limit of an answer: a few tokens, after the reasoning of a reasoning model."""

_WORDS = ("quillon", "zarf", "umbel")
"""The words that the schema allows. No model answers with one of them unless it is held to the schema."""

_WORD = ModelRequest(
    'This only tests the connection. Answer with a JSON object like {"word": "..."} and nothing else. Its only member, '
    '"word", is any word that you like.',
    [{"role": "user", "content": 'Answer with the JSON object {"word": ...}.'}],
    schema={
        "type": "object",
        "properties": {"word": {"type": "string", "enum": list(_WORDS)}},
        "required": ["word"],
        "additionalProperties": False,
    },
    name="test",
    max_tokens=_ANSWER_TOKENS,
)

_FUNCTION = OfferedTool(
    "read_thermometer",
    "Read the thermometer in a room, and return the temperature.",
    {
        "type": "object",
        "properties": {"room": {"type": "string", "description": "The name of the room"}},
        "required": ["room"],
        "additionalProperties": False,
    },
)
_CALL = ModelRequest(
    "You find out what you are asked with the functions that you are given. Call the function; do not guess.",
    [{"role": "user", "content": "How warm is it in the kitchen? Read the thermometer there."}],
    [_FUNCTION],
    name="test",
    max_tokens=_ANSWER_TOKENS,
)

_PASSING = frozenset({"model_overloaded", "model_refused", "model_answer_empty", "model_answer_truncated"})
"""Failures of an endpoint that accepted the key: another request may succeed."""

_CUT_OFF = frozenset({"model_answer_truncated", "model_answer_empty"})
"""Failures of an answer after the endpoint has read, and counted, the question."""

_COUNTING_TOKENS = 16
"""The token limit of an answer that nobody reads: the least that all endpoints accept."""

_SAMPLE = 4
"""One line in so many of the prompt is a sample of it."""

_MOST_NAMES = 20
_LONGEST_NAME = 100

_SHARE_READ = 0.8
"""The share of the expected tokens below which a prompt has been cut."""


async def check_model(
    settings: Settings, secrets: Secrets, tools: Sequence[Tool], *, answer_s: float = ANSWER_S
) -> list[Finding]:
    """Check the planner, and what its model can do. `tools` are those that a plan may use."""
    model = make_model(_disable_retries(settings.openai), secrets)
    try:
        planner = choose_planner(settings, model)
    except ConfigurationError as error:
        return [Finding("planner", "fail", str(error))]
    offline = f"{planner.name}: plans are made offline"
    if model is None:
        return [
            Finding("planner", "ok", offline),
            Finding("model", "ok", "not configured; only agent steps need one"),
        ]
    plans = f"{offline}; the model only carries out agent steps"
    if planner.needs_model:
        plans = f"{planner.name}: the model makes the plans, and carries out agent steps"
    prompt = _write_prompt(settings, tools) if isinstance(planner, ModelPlanner) else None
    async with model:
        examination = _Examination(model, model.list_names, answer_s, with_key=settings.openai.has_key)
        return [Finding("planner", "ok", plans), *await examination.run(prompt)]


def _disable_retries(settings: OpenAISettings) -> OpenAISettings:
    """Return the settings without retries."""
    return settings.model_copy(update={"max_retries": 0})


def _write_prompt(settings: Settings, tools: Sequence[Tool]) -> str:
    """Return what the planner tells the model beside a request."""
    offered = [tool for tool in tools if not tool.denied]
    extras = shows_all_fields(settings.openai.plan_fields, settings.openai.model)
    listing = list_tools(offered, "", (), settings.openai.catalogue_tokens, notes=extras)
    return build_instructions(listing, offered, most_steps=Limits().max_steps, agent_steps=True, extras=extras)


class _SlowError(Exception):
    """An answer was not there in time. `heard`: the characters of it that were."""

    def __init__(self, heard: int) -> None:
        super().__init__()
        self.heard = heard


@dataclass(slots=True)
class _StreamedText:
    """The text of an answer as it came: the seconds until the first piece, and the characters so far."""

    began: float = field(default_factory=time.perf_counter)
    first_s: float | None = None
    characters: int = 0

    def note(self, text: str) -> None:
        self.first_s = self.first_s or time.perf_counter() - self.began
        self.characters += len(text)


class _Examination:
    """The questions to one model, the cheapest first. A question that is not answered in time is the last."""

    def __init__(
        self, model: LanguageModel, list_names: Callable[[], Awaitable[list[str]]], answer_s: float, *, with_key: bool
    ) -> None:
        self._model = model
        self._list_names = list_names
        self._answer_s = answer_s
        self._with_key = with_key

    async def run(self, prompt: str | None) -> list[Finding]:
        """Return a finding for each question. `prompt` None: no plans are asked of the model."""
        # Import the library first: its seconds do not count as the endpoint's.
        await asyncio.to_thread(_load_library)
        findings: list[Finding] = []
        check = "model"
        try:
            answer = await self._reach(findings)
            findings.append(await self._list_models())
            if prompt is not None:
                findings.append(self._judge_schema(answer))
            check = "model tools"
            findings.append(await self._try_function())
            if prompt is not None:
                check = "model prompt"
                findings.append(await self._try_prompt(prompt))
        except ModelError as error:
            fatal = check == "model" and error.code not in _PASSING
            findings.append(Finding(check, "fail" if fatal else "warn", str(error)))
            if error.code == "model_unknown":
                findings.append(await self._list_models())
        except _SlowError as slow:
            findings.append(Finding(check, "warn", self._describe_slow(slow)))
        except Exception as error:  # noqa: BLE001 - a doctor does not die of what it finds
            findings.append(Finding(check, "fail", f"internal error, please report it: {error!r}"))
        return findings

    async def _ask(self, request: ModelRequest, heard: _StreamedText | None = None) -> ModelAnswer:
        """Return the answer to one question. Raises: ModelError, _SlowError."""
        heard = heard or _StreamedText()
        try:
            async with asyncio.timeout(self._answer_s):
                return await self._model.answer(replace(request, on_text=heard.note))
        except TimeoutError:
            raise _SlowError(heard.characters) from None

    def _describe_slow(self, slow: _SlowError) -> str:
        status = self._model.status()
        name, time_s = f"{status.model or 'the model'} at {status.endpoint}", f"{self._answer_s:g} s"
        if slow.heard:
            return (
                f"{name} was still writing after {time_s} ({slow.heard} characters): use a smaller or faster model, or "
                "one that thinks less; openai.answer_timeout_s bounds an answer"
            )
        return (
            f"{name} gave no answer within {time_s}: see whether it is busy, or too slow to read so much; fewer tools "
            "make the prompt shorter (openai.catalogue_tokens)"
        )

    async def _reach(self, findings: list[Finding]) -> ModelAnswer:
        """Ask for any word as JSON, and report how that went."""
        heard = _StreamedText()
        answer = await self._ask(_WORD, heard)
        seconds = time.perf_counter() - heard.began
        status = self._model.status()
        key = "key accepted" if self._with_key else "no key"
        streamed = f"streamed (first text after {heard.first_s:.1f} s)" if heard.first_s else "not streamed"
        counted = f"{answer.usage.tokens} tokens" if answer.counted else "tokens not counted"
        said = f"{status.model} at {status.endpoint} answered in {seconds:.1f} s"
        said = f"{said}: {key}, {status.api}, {status.output or 'prompt'}, {streamed}, {counted}"
        if _find_word(answer.text) is None:
            said = f"{said}. It did not return the requested JSON, so plans may fail: use a more capable model"
            findings.append(Finding("model", "warn", said))
        else:
            findings.append(Finding("model", "ok", said))
        return answer

    async def _list_models(self) -> Finding:
        """Report which models the endpoint lists. Some list none, and some answer to any name."""
        try:
            names = await self._list_names()
        except ModelError as error:
            return Finding("model list", "ok", f"the endpoint does not list its models: {error}")
        shown = [one_line(name, _LONGEST_NAME) for name in names[:_MOST_NAMES]]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        listed = f"the endpoint lists {', '.join(shown) or 'no models'}{more}"
        asked = self._model.status().model
        # Gemini lists `models/NAME`, and Ollama `NAME:latest`.
        known = {
            spelling for name in names for spelling in (name, name.rpartition("/")[2], name.removesuffix(":latest"))
        }
        if asked and names and asked not in known:
            return Finding("model list", "warn", f"{listed}, and not {asked}: see openai.model")
        return Finding("model list", "ok", listed)

    def _judge_schema(self, answer: ModelAnswer) -> Finding:
        level, word = self._model.status().output, _find_word(answer.text)
        risk = "plans are judged all the same, and may need more attempts"
        if word in _WORDS:
            return Finding("model schema", "ok", f"the answer was held to its schema ({level or 'prompt'})")
        if level == "json_schema":
            detail = (
                "the endpoint took a schema and did not hold the answer to it"
                + (f" (it said {word[:40]!r})" if word else "")
                + f": {risk}; see whether its server or model supports structured output"
            )
        else:
            asked = "JSON of any form" if level == "json_object" else "no form at all"
            detail = f"the endpoint takes no schema, and was held to {asked}: {risk}; a newer server may take one"
        return Finding("model schema", "warn", detail)

    async def _try_function(self) -> Finding:
        """Offer a function, and report whether the model calls it."""
        answer = await self._ask(_CALL)
        remedy = (
            "agent steps need a model that calls functions, and a server that reads its calls (llama.cpp: --jinja; "
            "vLLM: --enable-auto-tool-choice and --tool-call-parser)"
        )
        called = [call for call in answer.calls if call.name == _FUNCTION.name]
        if not called:
            how = "wrote the call as text" if _FUNCTION.name in answer.text else "answered in words"
            return Finding("model tools", "warn", f"it was to call a function, and {how}: {remedy}")
        if not _fits(called[0].arguments):
            return Finding("model tools", "warn", f"it called a function with arguments that do not fit: {remedy}")
        return Finding("model tools", "ok", "it called a function with arguments that fit; nothing was run")

    async def _try_prompt(self, prompt: str) -> Finding:
        """Send a prompt as long as those for plans, and report whether the endpoint has read all of it.

        A cut prompt is not an error of the endpoint, but it counts fewer tokens than a sample of the prompt makes
        expect.
        """
        lines = prompt.splitlines()
        sample = "\n".join(lines[::_SAMPLE])
        part = await self._count(sample)
        whole = await self._count(prompt)
        if not (part and whole):
            detail = (
                f"the endpoint counts no tokens, so nobody would notice that it cuts a long prompt; that of a plan has "
                f"about {estimate_tokens(prompt)} with the tools of now"
            )
            return Finding("model prompt", "ok", detail)
        expected = round(part * len(prompt.encode()) / max(1, len(sample.encode())))
        if whole < _SHARE_READ * expected:
            return Finding(
                "model prompt",
                "warn",
                f"the endpoint cut the prompt of a plan without a word: with the tools of now it has about {expected} "
                f"tokens, of which {whole} were read: {LARGER_CONTEXT}",
            )
        return Finding(
            "model prompt", "ok", f"the prompt of a plan was read whole: {whole} tokens with the tools of now"
        )

    async def _count(self, instructions: str) -> int | None:
        """Return the tokens that the endpoint counts in a question with these instructions; None if it counts none."""
        items = [{"role": "user", "content": "This only tests how much you can read. Answer with the word ok."}]
        try:
            answer = await self._ask(ModelRequest(instructions, items, name="test", max_tokens=_COUNTING_TOKENS))
        except ModelError as error:
            if error.code not in _CUT_OFF:
                raise
            return error.usage.input_tokens or None
        return answer.usage.input_tokens if answer.counted else None


def _find_word(text: str) -> str | None:
    """Return the word in an answer; None if it has not the requested form."""
    try:
        for found in find_pieces(text):
            value = found.value
            if isinstance(value, dict) and isinstance(value.get("word"), str):
                return str(value["word"])
    except NoJsonError:
        pass
    return None


def _fits(arguments: str) -> bool:
    """Return whether the arguments of a call fit the schema of the function."""
    try:
        given = from_json(arguments)
    except ValueError:
        return False
    return isinstance(given, dict) and given.keys() == {"room"} and isinstance(given["room"], str)


def _load_library() -> None:
    with one_import_at_a_time:
        importlib.import_module("agent_runtime.models.openai_agents")
