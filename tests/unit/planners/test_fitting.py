"""A planner whose model reads less than it is sent, or whose answer is cut short."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agent_runtime.domain.errors import ModelError, PlanningError
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.usage import Usage, estimate_tokens
from agent_runtime.planners.model.fitting import Fitting, Sizes
from agent_runtime.planners.model.planner import ModelPlanner
from agent_runtime.testing import ScriptedLanguageModel
from unit.planners.planning import all_tools
from unit.planners.test_model_planner import BAD, GOOD, PLAN, make_request, make_tools

OVERFLOW = ModelError("The question is longer than it can read: --ctx-size.", code="model_context_overflow")
CUT = ModelError("It was cut off.", code="model_answer_truncated", usage=Usage(input_tokens=50, output_tokens=4096))
REPEATED = ModelError("It repeated itself.", code="model_answer_repetitive", usage=Usage(output_tokens=1000))


@pytest.fixture
async def tools() -> list[Tool]:
    return [*await all_tools(), *make_tools(300)]


def count_tokens(request: ModelRequest) -> int:
    """Count the tokens as a model does to which one has four characters."""
    return (len(request.instructions) + sum(len(item["content"]) for item in request.items)) // 4


class SmallModel(ScriptedLanguageModel):
    """A model that refuses questions that leave no room for 100 more tokens in its context, as `refuse` has it."""

    def __init__(
        self, context: int, answers: Sequence[str | ModelError], refuse: Callable[[int, int], ModelError]
    ) -> None:
        super().__init__(answers)
        self._context = context
        self._refuse = refuse
        self.refused: list[ModelRequest] = []

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        if (count := count_tokens(request)) + 100 > self._context:
            self.refused.append(request)
            raise self._refuse(self._context, count)
        return await super().answer(request)


def name_all(context: int, question: int) -> ModelError:
    return ModelError(
        "Too long.", code="model_context_overflow", context_tokens=context, question_tokens=question, usage=Usage(3)
    )


def name_context(context: int, _: int) -> ModelError:
    return ModelError("Too long.", code="model_context_overflow", context_tokens=context, usage=Usage(3))


def name_nothing(_: int, __: int) -> ModelError:
    return OVERFLOW


@pytest.mark.parametrize("context", [5000, 8192, 16_384])
async def test_the_catalogue_gets_the_size_that_the_endpoint_names(context: int, tools: list[Tool]) -> None:
    for refuse in (name_all, name_context):
        model = SmallModel(context, [GOOD], refuse)
        answer = await ModelPlanner(model).plan(make_request(tools))
        assert (answer.plan, len(model.refused), len(model.requests)) == (PLAN, 1, 1)
        assert count_tokens(model.requests[0]) > context * 0.4
        assert answer.usage == Usage(103, 10)


async def test_the_catalogue_is_halved_twice_where_the_endpoint_names_no_size(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([OVERFLOW, OVERFLOW, GOOD])
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN
    whole, half, quarter = (estimate_tokens(request.instructions) for request in model.requests)
    assert whole * 0.4 < half < whole * 0.75
    assert half * 0.4 < quarter < half * 0.8
    assert "read_file" in model.requests[-1].instructions  # the most relevant ones stay


async def test_a_third_overflow_ends_the_planning_with_the_remedies(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([OVERFLOW] * 3)
    with pytest.raises(PlanningError, match=r"--ctx-size.*tools shown in full either") as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert (failed.value.code, len(model.requests)) == ("model_context_overflow", 3)


async def test_a_context_that_does_not_even_hold_the_rest_is_not_asked_again(tools: list[Tool]) -> None:
    model = SmallModel(300, [], name_all)
    with pytest.raises(PlanningError) as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert (failed.value.code, len(model.refused)) == ("model_context_overflow", 1)


async def test_a_correction_fits_the_context_that_is_known(tools: list[Tool]) -> None:
    long = BAD.replace("notes.txt", "n" * 30_000)
    model = SmallModel(6000, [long, GOOD], name_all)
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN
    assert (len(model.refused), len(model.requests)) == (1, 2)
    said = model.requests[1].items[-1]["content"]
    assert "There is no step 's9'" in said


async def test_a_correction_that_does_not_fit_ends_with_the_faults_of_the_plan(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([BAD, OVERFLOW, OVERFLOW, OVERFLOW])
    with pytest.raises(PlanningError, match=r"steps\[1\]\.arguments: There is no step 's9'.*--ctx-size") as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert failed.value.code == "invalid_plan"


async def test_a_plan_from_a_question_that_was_cut_silently_is_made_again_with_fewer_tools(tools: list[Tool]) -> None:
    cut = ModelAnswer((), BAD, (), Usage(4096, 10), read_tokens=4096)
    model = ScriptedLanguageModel([cut, GOOD])
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN
    first, second = model.requests
    assert count_tokens(second) < 4096 < count_tokens(first)
    assert len(second.items) == 1


async def test_a_plan_that_is_right_is_taken_although_the_question_was_cut(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([ModelAnswer((), GOOD, (), Usage(4096, 10), read_tokens=4096)])
    assert (await ModelPlanner(model).plan(make_request(tools))).plan == PLAN


async def test_an_invalid_plan_from_a_question_that_was_cut_names_the_remedies(tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([ModelAnswer((), BAD, (), Usage(600, 10), read_tokens=600)] * 5)
    with pytest.raises(
        PlanningError,
        match=r"no step 's9'.*only 600 tokens.*OLLAMA_CONTEXT_LENGTH.*--ctx-size.*openai\.catalogue_tokens",
    ) as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert (failed.value.code, len(model.requests)) == ("invalid_plan", 5)


@pytest.mark.parametrize(("error", "told"), [(CUT, "cut off before its end"), (REPEATED, "repeated itself")])
async def test_an_answer_that_was_cut_short_is_asked_for_again(error: ModelError, told: str, tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([error, GOOD])
    answer = await ModelPlanner(model).plan(make_request(tools))
    assert answer.plan == PLAN
    assert answer.usage == error.usage + Usage(100, 10)
    assert [item["role"] for item in model.requests[1].items] == ["user", "assistant", "user"]
    assert told in model.requests[1].items[-1]["content"]


@pytest.mark.parametrize("error", [CUT, REPEATED])
async def test_answers_that_are_cut_short_time_and_again_keep_their_code(error: ModelError, tools: list[Tool]) -> None:
    model = ScriptedLanguageModel([BAD, error, error])
    with pytest.raises(PlanningError, match=str(error)) as failed:
        await ModelPlanner(model).plan(make_request(tools))
    assert (failed.value.code, len(model.requests)) == (error.code, 3)
    assert failed.value.usage == Usage(100, 10) + error.usage + error.usage


async def test_an_answer_that_was_cut_because_the_context_was_full_gets_more_room(tools: list[Tool]) -> None:
    full = ModelError("Full.", code="model_answer_truncated", context_tokens=8192, question_tokens=8000)
    model = ScriptedLanguageModel([full, GOOD])
    await ModelPlanner(model).plan(make_request(tools))
    assert len(model.requests[1].instructions) < len(model.requests[0].instructions) * 0.95


SIZES = Sizes(catalogue=6000, whole=8000)


def fit(context: int | None, question: int | None = None, sizes: Sizes = SIZES) -> Fitting:
    fitting = Fitting(24_000)
    fitting.learn(sizes, context, question)
    fitting.shrink(sizes)
    return fitting


def test_the_room_for_tools_is_what_the_context_leaves() -> None:
    assert fit(8192).catalogue_tokens == 8192 - 1024 - 2000
    assert fit(8192, 4000).catalogue_tokens == 5400  # it fits by their count; still a tenth less
    assert fit(8192, 16_000).catalogue_tokens == (8192 - 1024) // 2 - 2000
    assert fit(None).catalogue_tokens == 3000
    assert fit(2048).catalogue_tokens == 3000  # our estimate leaves nothing, which may be wrong


@pytest.mark.parametrize(("context", "question"), [(2048, 8000), (1, 10**9)])
def test_where_nothing_is_left_for_tools_nothing_changes(context: int, question: int) -> None:
    fitting = fit(context, question)
    assert (fitting.catalogue_tokens, fitting.has_shrunk) == (24_000, False)


def make_long(tokens: int) -> Any:
    return Sizes(catalogue=1000, whole=tokens)


def test_whether_a_request_fits_is_known_only_once_the_context_is() -> None:
    assert not Fitting(1000).is_too_long(make_long(10**6))
    fitting = fit(8192)
    assert not fitting.is_too_long(make_long(7100))
    assert fitting.is_too_long(make_long(7200))
