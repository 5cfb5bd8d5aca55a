"""The planner that asks a language model, and has it correct its answer."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog

from agent_runtime.domain.errors import Fault, InvalidPlanError, ModelError, PlanningError
from agent_runtime.domain.model_arguments import plan_without_optional_nulls
from agent_runtime.domain.model_requests import LARGER_CONTEXT, ModelAnswer, ModelRequest
from agent_runtime.domain.plan import Plan, tool_keys
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.domain.tools import Tool, tool_key
from agent_runtime.domain.usage import Usage, estimate_tokens
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.model.attempt_notes import AttemptNotes
from agent_runtime.planners.model.cleaning import clean
from agent_runtime.planners.model.fitting import Fitting, Sizes
from agent_runtime.planners.model.model_size import PlanFields, shows_all_fields
from agent_runtime.planners.model.plan_reader import Declined, find_named_tools, read_plan
from agent_runtime.planners.model.plan_schema import build_plan_schema
from agent_runtime.planners.model.prompt import build_conversation, build_correction, build_instructions, needs_extras
from agent_runtime.planners.model.tool_listing import find_nearest, list_tools
from agent_runtime.services.ports import LanguageModel

log = structlog.get_logger()

_Found = TypeVar("_Found")

CATALOGUE_TOKENS = 24_000
"""The most tokens of the catalogue, estimated."""

LEAST_TOKENS = 32
"""The least tokens that are worth asking with."""

CUT_SHORT = frozenset({"model_answer_truncated", "model_answer_repetitive"})
"""The codes of an answer that the model can be asked to give again, and shorter."""

_LONG = 100_000
"""An answer of more characters is read in a thread, because it would block the event loop."""

_SHORT_ECHO = 600
_MOST_FAULTS = 10
_LONGEST_FAULT = 300
_LONGEST_REASON = 2000
_MOST_SHOWN = 8
_NEAREST = 3


class ModelPlanner:
    """A `Planner` that has a language model write the plan.

    The answer is a proposal. It is read with the tolerance that `plan_reader` documents, and judged by the contract. If
    it has faults, or was cut short, the model is told so and asked again, `repairs` times at most. `catalogue_tokens`
    limits the catalogue in the prompt; if the model cannot read so much, it is made smaller, twice at most. `fields`:
    whether it is shown the fields that most steps leave out. `name` identifies the planner in the journal.
    """

    needs_model = True
    builtin_first = False
    revision_help = None

    def __init__(
        self,
        model: LanguageModel,
        *,
        name: str = "openai",
        repairs: int = 2,
        catalogue_tokens: int = CATALOGUE_TOKENS,
        fields: PlanFields = "auto",
    ) -> None:
        self.name = name
        self._fields = fields
        self._model = model
        self._repairs = repairs
        self._catalogue_tokens = catalogue_tokens

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return a plan without faults for the prompt and the feedback.

        Raises: PlanningError with the tokens spent. Its code is `planning_refused` (the model says that it cannot, and
        why), `invalid_plan` (the last answer still had faults), `budget_exceeded` (`max_tokens` does not suffice), or
        that of the ModelError. Where the model cannot read a correction, the error is `invalid_plan` with the faults.
        """
        extras = shows_all_fields(self._fields, self._model.status().model or "") or (
            request.previous is not None and needs_extras(request.previous, request.tools)
        )
        return await _Attempt(self._model, request, self._repairs, self._catalogue_tokens, extras=extras).run()


@dataclass(frozen=True, slots=True)
class _Faulty:
    """An answer that is no plan, why, and the (server, tool) pairs that it names."""

    text: str
    faults: Sequence[Fault]
    named: Sequence[tuple[str, str]] = ()


class _Attempt:
    """One plan in the making: the conversation so far, and the tokens it has cost."""

    def __init__(
        self, model: LanguageModel, request: PlanRequest, repairs: int, catalogue_tokens: int, *, extras: bool
    ) -> None:
        self._model = model
        self._extras = extras
        self._request = request
        self._repairs = repairs
        self._notes = AttemptNotes(request.keep)
        self._schema = build_plan_schema(request.tools, agent_steps=request.agent_steps, extras=extras)
        self._conversation = build_conversation(request, extras=extras)
        self._fitting = Fitting(catalogue_tokens)
        self._show_tools()
        self._usage = Usage()

    def _show_tools(self) -> None:
        request = self._request
        used = [key for step in request.previous.steps for key in tool_keys(step)] if request.previous else []
        question = "\n".join((request.prompt, *request.feedback))
        self._listing = list_tools(request.tools, question, used, self._fitting.catalogue_tokens, notes=self._extras)
        self._instructions = build_instructions(
            self._listing,
            request.tools,
            question,
            most_steps=request.max_steps,
            agent_steps=request.agent_steps,
            extras=self._extras,
        )

    async def run(self) -> PlanAnswer:
        faulty: _Faulty | None = None
        repairs_left = self._repairs
        while True:
            try:
                answer = await self._ask(faulty)
            except ModelError as error:
                if error.code not in CUT_SHORT or not repairs_left:
                    raise self._to_planning_error(error, faulty) from error
                self._note_full_context(error)
                faulty = _Faulty("", [_find_cut(error.code)])
                repairs_left -= 1
                continue
            try:
                plan = await _read(self._read_and_judge, answer.text)
            except Declined as reason:
                await self._notes.end("declined", answer.usage, answer=answer.text, message=str(reason))
                raise PlanningError(
                    f"The language model says that it cannot plan this: {clean(str(reason), _LONGEST_REASON)}",
                    usage=self._usage,
                ) from None
            except InvalidPlanError as error:
                await self._notes.end(error.code, answer.usage, answer=answer.text, faults=error.faults)
                if self._fits_after_cut(answer):
                    faulty = None
                    continue
                if not repairs_left:
                    raise self._make_invalid_error(error.faults, answer.read_tokens) from error
                faulty = _Faulty(answer.text, error.faults, await _read(find_named_tools, answer.text))
                repairs_left -= 1
            else:
                await self._notes.end("planned", answer.usage, answer=answer.text)
                return PlanAnswer(plan, self._usage)

    def _read_and_judge(self, text: str) -> Plan:
        read = read_plan(text, self._request.tools, self._request.prompt)
        plan = plan_without_optional_nulls(read, self._request.tools)
        faults = list(self._request.faults(plan))
        if faults:
            raise InvalidPlanError(faults)
        return plan

    async def _ask(self, faulty: _Faulty | None) -> ModelAnswer:
        """Ask for a plan, or for a correction of the faulty answer; with a smaller catalogue if it is too long.

        Raises: ModelError, after its cost is added.
        """
        while True:
            messages = self._build_messages(faulty)
            self._notes.begin(self._instructions, messages)
            try:
                answer = await self._model.answer(
                    ModelRequest(
                        instructions=self._instructions,
                        items=messages,
                        schema=self._schema,
                        name="plan",
                        max_tokens=self._find_tokens_left(messages),
                        on_text=self._request.on_text,
                    )
                )
            except ModelError as error:
                self._usage += error.usage
                await self._notes.end(error.code, error.usage, message=str(error))
                told = error.context_tokens, error.question_tokens
                if error.code != "model_context_overflow" or not self._learn_and_fit(messages, *told):
                    raise
            else:
                self._usage += answer.usage
                return answer

    def _learn_and_fit(self, messages: Sequence[JsonObject], context: int | None, question: int | None) -> bool:
        """Show fewer tools after a request did not fit, by what its endpoint said of it. Return as `_fit`."""
        sizes = self._measure(messages)
        self._fitting.learn(sizes, context, question)
        return self._fit(sizes)

    def _fit(self, sizes: Sizes) -> bool:
        """Show fewer tools after a request of these sizes did not fit. Return False where that is not possible."""
        before = self._listing
        if not self._fitting.shrink(sizes):
            return False
        self._show_tools()
        log.warning("model_shown_fewer_tools", catalogue_tokens=self._fitting.catalogue_tokens, remedy=LARGER_CONTEXT)
        return len(self._listing.text) < len(before.text)

    def _fits_after_cut(self, answer: ModelAnswer) -> bool:
        """Return whether to ask anew with fewer tools, because the endpoint cut the question that this answers."""
        return answer.read_tokens is not None and self._learn_and_fit(self._conversation, answer.read_tokens, None)

    def _note_full_context(self, error: ModelError) -> None:
        """Make room for the answer if the last one was cut because the context was full, not at its limit."""
        if error.context_tokens is not None:
            self._learn_and_fit(self._conversation, error.context_tokens, error.question_tokens)

    def _build_messages(self, faulty: _Faulty | None) -> list[JsonObject]:
        """Return the conversation; with the faulty answer as far as the context is known to hold it."""
        if faulty is None:
            return self._conversation
        unknown = list(self._find_unknown(faulty))
        messages = [*self._conversation, *build_correction(faulty.text, faulty.faults, unknown)]
        if self._fitting.is_too_long(self._measure(messages)):
            short = clean(faulty.text, _SHORT_ECHO)
            messages = [*self._conversation, *build_correction(short, faulty.faults, ())]
            sizes = self._measure(messages)
            if self._fitting.is_too_long(sizes):
                self._fit(sizes)
        return messages

    def _measure(self, messages: Sequence[JsonObject]) -> Sizes:
        whole = estimate_tokens(self._instructions, *(item["content"] for item in messages))
        return Sizes(estimate_tokens(self._listing.text), whole)

    def _find_tokens_left(self, messages: Sequence[JsonObject]) -> int | None:
        """Return how many tokens of the budget are left for an answer. Raises: PlanningError where they are too few."""
        limit = self._request.max_tokens
        if limit is None:
            return None
        taken = self._measure(messages).whole + estimate_tokens(json.dumps(self._schema))
        left = limit - self._usage.tokens - taken
        if left < LEAST_TOKENS:
            raise PlanningError(
                f"The budget of {limit} tokens does not suffice for a plan: {self._usage.tokens} are used, and the "
                f"next request to the language model takes about {taken}. Raise the budget, or allow fewer "
                "servers.",
                code="budget_exceeded",
                usage=self._usage,
            )
        return left

    def _to_planning_error(self, error: ModelError, faulty: _Faulty | None) -> PlanningError:
        """Return the model's error as one of planning; with the faults of the plan if they cannot be corrected."""
        message, code = str(error), error.code
        if code == "model_context_overflow":
            if self._fitting.has_shrunk:
                shown = len(self._listing.full)
                message = f"{message.removesuffix('.')}. It did not fit with {shown} tools shown in full either."
            if faulty is not None:
                code = "invalid_plan"
                message = (
                    f"The answer of the language model is not a valid plan, and it cannot be asked to correct it. "
                    f"{_describe_faults(faulty.faults)}. {message}"
                )
        return PlanningError(message, code=code, usage=self._usage, may_pass=error.may_pass)

    def _find_unknown(self, faulty: _Faulty) -> Iterator[Tool]:
        """Yield the tools whose whole schemas are shown for a correction: those that the answer names, if they were not
        shown in full or its arguments have faults, and those most like the ones it invents.
        """
        tools = {tool.key: tool for tool in self._request.tools}
        hidden = [tool for tool in self._request.tools if tool.key not in self._listing.full]
        misused = any(".arguments." in fault.field for fault in faulty.faults)
        shown: set[str] = set()
        for server, name in faulty.named:
            key = tool_key(server, name)
            found = [tools[key]] if key in tools else find_nearest(hidden, f"{server} {name}", _NEAREST)
            for tool in found:
                if (
                    (misused or tool.key not in self._listing.full)
                    and tool.key not in shown
                    and len(shown) < _MOST_SHOWN
                ):
                    shown.add(tool.key)
                    yield tool

    def _make_invalid_error(self, faults: Sequence[Fault], read_tokens: int | None) -> PlanningError:
        """Return the error for the last answer. `read_tokens`: as in `ModelAnswer`."""
        times = "once" if self._repairs == 0 else f"{self._repairs + 1} times"
        message = (
            f"The language model was asked {times}, and its last answer is not a valid plan. {_describe_faults(faults)}"
        )
        if read_tokens is not None:
            message += (
                f". The model read only {read_tokens} tokens of a question of about "
                f"{self._measure(self._conversation).whole}, so its endpoint cut it without a word: {LARGER_CONTEXT}"
            )
        return PlanningError(message, code="invalid_plan", usage=self._usage)


async def _read(read: Callable[[str], _Found], answer: str) -> _Found:
    """Return what `read` finds in an answer; it runs in a thread where it would block the event loop."""
    return await asyncio.to_thread(read, answer) if len(answer) > _LONG else read(answer)


def _find_cut(code: str) -> Fault:
    """Return what the model is told of an answer that was cut short."""
    if code == "model_answer_repetitive":
        return Fault("", "Your last answer repeated itself without end and was stopped. Write each step once")
    return Fault(
        "",
        "Your last answer was too long and was cut off before its end. Write a shorter plan: fewer steps, less text",
    )


def _describe_faults(faults: Sequence[Fault]) -> str:
    named = [clean(str(fault), _LONGEST_FAULT) for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        named.append(f"and {len(faults) - _MOST_FAULTS} more faults")
    return "; ".join(named)
