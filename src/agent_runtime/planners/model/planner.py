"""The planner that asks a language model, and has it correct its answer."""

import asyncio
import json
from collections.abc import Iterator, Sequence

from agent_runtime.domain.errors import Fault, InvalidPlanError, ModelError, PlanningError
from agent_runtime.domain.model_arguments import plan_without_optional_nulls
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest
from agent_runtime.domain.plan import Plan, tool_keys
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.domain.tools import Tool, tool_key
from agent_runtime.domain.usage import Usage, estimate_tokens
from agent_runtime.domain.values import JsonObject
from agent_runtime.planners.model.plan_reader import Declined, find_named_tools, read_plan
from agent_runtime.planners.model.prompt import build_conversation, build_correction, build_instructions, plan_schema
from agent_runtime.planners.model.tool_listing import clean, find_nearest, list_tools
from agent_runtime.services.ports import LanguageModel

CATALOGUE_TOKENS = 24_000
"""The most tokens of the catalogue, estimated."""

LEAST_TOKENS = 32
"""The least tokens that are worth asking with."""

_LONG = 100_000
"""An answer of more characters is read in a thread, because it would block the event loop."""

_MOST_FAULTS = 10
_LONGEST_FAULT = 300
_LONGEST_REASON = 2000
_MOST_SHOWN = 8
_NEAREST = 3


class ModelPlanner:
    """A `Planner` that has a language model write the plan.

    The answer is a proposal. It is read with the tolerance that `plan_reader` documents, and judged by the contract. If
    it has faults, the model is told all of them and asked again, `repairs` times at most. `catalogue_tokens` limits the
    catalogue in the prompt. `name` identifies the planner in the journal.
    """

    needs_model = True
    builtin_first = False

    def __init__(
        self,
        model: LanguageModel,
        *,
        name: str = "openai",
        repairs: int = 2,
        catalogue_tokens: int = CATALOGUE_TOKENS,
    ) -> None:
        self.name = name
        self._model = model
        self._repairs = repairs
        self._catalogue_tokens = catalogue_tokens

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return a plan without faults for the prompt and the feedback.

        Raises: PlanningError with the tokens spent. Its code is `planning_refused` (the model says that it cannot, and
        why), `invalid_plan` (the last answer still had faults), `budget_exceeded` (`max_tokens` does not suffice), or
        that of the ModelError.
        """
        return await _Attempt(self._model, request, self._repairs, self._catalogue_tokens).run()


class _Attempt:
    """One plan in the making: the conversation so far, and the tokens it has cost."""

    def __init__(self, model: LanguageModel, request: PlanRequest, repairs: int, catalogue_tokens: int) -> None:
        self._model = model
        self._request = request
        self._repairs = repairs
        used = [key for step in request.previous.steps for key in tool_keys(step)] if request.previous else []
        self._listing = list_tools(
            request.tools, "\n".join((request.prompt, *request.feedback)), used, catalogue_tokens
        )
        self._instructions = build_instructions(
            self._listing, most_steps=request.max_steps, agent_steps=request.agent_steps
        )
        self._usage = Usage()

    async def run(self) -> PlanAnswer:
        asked = build_conversation(self._request)
        messages = asked
        for repairs_left in range(self._repairs, -1, -1):
            answer = await self._ask(messages)
            try:
                if len(answer.text) > _LONG:
                    plan = await asyncio.to_thread(self._read_and_judge, answer.text)
                else:
                    plan = self._read_and_judge(answer.text)
                return PlanAnswer(plan, self._usage)
            except Declined as reason:
                raise PlanningError(
                    f"The language model says that it cannot plan this: {clean(str(reason), _LONGEST_REASON)}",
                    usage=self._usage,
                ) from None
            except InvalidPlanError as error:
                if not repairs_left:
                    raise self._make_invalid_error(error.faults) from error
                messages = [*asked, *build_correction(answer.text, error.faults, list(self._find_unknown(answer.text)))]
        raise AssertionError  # pragma: no cover - the last turn of the loop returns or raises

    def _read_and_judge(self, text: str) -> Plan:
        read = read_plan(text, self._request.tools, self._request.prompt)
        plan = plan_without_optional_nulls(read, self._request.tools)
        faults = list(self._request.faults(plan))
        if faults:
            raise InvalidPlanError(faults)
        return plan

    async def _ask(self, messages: Sequence[JsonObject]) -> ModelAnswer:
        schema = plan_schema(agent_steps=self._request.agent_steps)
        limit = self._request.max_tokens
        left = None
        if limit is not None:
            taken = estimate_tokens(self._instructions, json.dumps(schema), *(item["content"] for item in messages))
            left = limit - self._usage.tokens - taken
            if left < LEAST_TOKENS:
                raise PlanningError(
                    f"The budget of {limit} tokens does not suffice for a plan: {self._usage.tokens} are used, and the "
                    f"next request to the language model takes about {taken}. Raise the budget, or allow fewer "
                    "servers.",
                    code="budget_exceeded",
                    usage=self._usage,
                )
        try:
            answer = await self._model.answer(
                ModelRequest(
                    instructions=self._instructions,
                    items=messages,
                    schema=schema,
                    name="plan",
                    max_tokens=left,
                    on_text=self._request.on_text,
                )
            )
        except ModelError as error:
            raise PlanningError(
                str(error), code=error.code, usage=self._usage + error.usage, may_pass=error.may_pass
            ) from error
        self._usage += answer.usage
        return answer

    def _find_unknown(self, answer: str) -> Iterator[Tool]:
        """Yield the tools that the answer names and that were not shown in full, and those most like the ones it
        invents.
        """
        tools = {tool.key: tool for tool in self._request.tools}
        hidden = [tool for tool in self._request.tools if tool.key not in self._listing.full]
        if not hidden:
            return
        shown: set[str] = set()
        for server, name in find_named_tools(answer):
            key = tool_key(server, name)
            found = [tools[key]] if key in tools else find_nearest(hidden, f"{server} {name}", _NEAREST)
            for tool in found:
                if tool.key not in self._listing.full | shown and len(shown) < _MOST_SHOWN:
                    shown.add(tool.key)
                    yield tool

    def _make_invalid_error(self, faults: Sequence[Fault]) -> PlanningError:
        named = [clean(str(fault), _LONGEST_FAULT) for fault in faults[:_MOST_FAULTS]]
        if len(faults) > _MOST_FAULTS:
            named.append(f"and {len(faults) - _MOST_FAULTS} more faults")
        times = "once" if self._repairs == 0 else f"{self._repairs + 1} times"
        return PlanningError(
            f"The language model was asked {times}, and its last answer is not a valid plan. {'; '.join(named)}",
            code="invalid_plan",
            usage=self._usage,
        )
