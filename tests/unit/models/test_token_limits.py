import pytest

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import ModelRequest
from agent_runtime.models.token_limits import (
    AnswerLimits,
    NamedLimits,
    find_silent_cut,
    is_full_context,
    read_named_limits,
)

PLAN = ModelRequest("", [], schema={"type": "object"})
STEP = ModelRequest("", [])


@pytest.mark.parametrize(
    ("said", "context", "question"),
    [
        ('{"error":{"message":"it exceeds","n_prompt_tokens":1407,"n_ctx":256}}', 256, 1407),
        (r'{"error":"{\"error\":{\"n_prompt_tokens\":5024,\"n_ctx\":4096}}"}', 4096, 5024),
        ("n_ctx=256 n_prompt_tokens=1407 the request exceeds the available context size", 256, 1407),
        ("request (34965 tokens) exceeds the available context size (32768 tokens), try increasing it", 32768, 34965),
        (
            (
                "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens "
                "(112946 in the messages, 10000 in the completion). Please reduce the length of the messages."
            ),
            16384,
            112946,
        ),
        (
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 16384. This model's maximum context "
                "length is 8192 tokens and your request has 4100 input tokens (16384 > 8192 - 4100)."
            ),
            8192,
            4100,
        ),
        (
            (
                "You passed 5000 input tokens and requested 4096 output tokens. However, the model's context "
                "length is only 8192 tokens, resulting in a maximum input length of 4096 tokens."
            ),
            8192,
            5000,
        ),
        (
            "this model's maximum context length is 4096 tokens, but the prompt contains 5000 input tokens",
            4096,
            5000,
        ),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", 4096, 5000),
        (
            (
                "This endpoint's maximum context length is 4096 tokens. However, you requested about 20000 "
                "tokens (3616 of text input, 16384 in the output)."
            ),
            4096,
            3616,
        ),
        (
            (
                "Trying to keep the first 7001 tokens when context the overflows. However, the model is loaded "
                "with context length of only 4096 tokens, which is not enough."
            ),
            4096,
            7001,
        ),
        ("the prompt is too long: 7900, model maximum context length: 4096", 4096, 7900),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200000, 210000),
        ("Requested tokens (5000) exceed context window of 4096", 4096, 5000),
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            1048576,
            1200000,
        ),
        ("Prompt contains 40000 tokens, too large for model with 32768 maximum context length", 32768, 40000),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`",
            4096,
            5000,
        ),
        ("Your messages resulted in 6,164 tokens, and the maximum context length is 4,097 tokens", 4097, 6164),
        ("the input length exceeds the context length", None, None),
        ("Your input exceeds the context window of this model.", None, None),
        ("maximum context length is 99999999999999999999 tokens", None, None),
    ],
)
def test_the_limits_that_endpoints_name_are_read(said: str, context: int | None, question: int | None) -> None:
    named = read_named_limits(said)
    assert (named.context, named.question, named.answer) == (context, question, None)


@pytest.mark.parametrize(
    "said",
    [
        "max_tokens is too large: 16384. This model supports at most 8192 completion tokens, whereas you gave 16384.",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
        "InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]",
        (
            "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less "
            "than the `context_window` for this model"
        ),
        "max_tokens: 16384 > 8192, which is the maximum allowed number of output tokens for this model",
    ],
)
def test_the_longest_answer_that_an_endpoint_gives_is_read(said: str) -> None:
    assert read_named_limits(said) == NamedLimits(answer=8192)


def limits(*, openai: bool = False, **settings: int) -> AnswerLimits:
    base_url = None if openai else "http://127.0.0.1:9/v1"
    return AnswerLimits(OpenAISettings.model_validate({"base_url": base_url, **settings}))


def test_every_answer_has_a_limit_and_that_of_a_plan_is_lower_off_openai() -> None:
    local, hosted = limits(), limits(openai=True)
    assert (local.choose(PLAN), local.choose(STEP)) == (4096, 16_384)
    assert (hosted.choose(PLAN), hosted.choose(STEP)) == (16_384, 16_384)


def test_thoughts_count_in_the_limit_so_that_a_model_that_thinks_gets_more() -> None:
    local = limits()
    local.note_thoughts()
    assert local.choose(PLAN) == 16_384


def test_the_operator_says_how_long_answers_may_be() -> None:
    for chosen in (limits(answer_tokens=1000), limits(answer_tokens=1000, openai=True)):
        chosen.note_thoughts()
        assert (chosen.choose(PLAN), chosen.choose(STEP)) == (1000, 1000)
    assert limits(answer_tokens=30_000).choose(STEP) == 30_000


def test_a_budget_lowers_the_limit_and_never_raises_it() -> None:
    local = limits()
    assert local.choose(ModelRequest("", [], max_tokens=50)) == 50
    assert local.choose(ModelRequest("", [], max_tokens=2_000_000)) == 16_384
    assert local.choose(ModelRequest("", [], max_tokens=2_000_000, schema={})) == 4096


def test_the_longest_answer_of_an_endpoint_is_kept_and_the_room_beside_one_question_is_not() -> None:
    local = limits()
    assert local.lower(16_384, NamedLimits(context=8192, question=4100)) == 3836
    assert local.choose(STEP) == 16_384
    assert local.lower(16_384, NamedLimits(answer=8192)) == 8192
    assert local.choose(STEP) == 8192
    assert local.choose(PLAN) == 4096


@pytest.mark.parametrize(
    "named",
    [
        NamedLimits(),
        NamedLimits(answer=16_384),
        NamedLimits(context=4096),
        NamedLimits(context=4096, question=5000),
        NamedLimits(context=4096, question=4000),
        NamedLimits(context=100_000, question=5000),
    ],
)
def test_a_question_that_is_too_long_itself_is_not_asked_again_for_a_shorter_answer(named: NamedLimits) -> None:
    assert limits().lower(16_384, named) is None


@pytest.mark.parametrize(("estimated", "reported"), [(6800, 2050), (6800, 4096), (6000, 4090), (40_000, 12_000)])
def test_a_question_that_was_cut_without_a_word_is_noticed(estimated: int, reported: int) -> None:
    assert find_silent_cut(estimated, reported) == reported


@pytest.mark.parametrize(
    ("estimated", "reported"),
    [(6800, 5100), (6800, 4200), (4200, 4096), (6800, 0), (6800, 26), (2000, 512), (100_000, 45_000)],
    ids=["four bytes", "five", "all of it", "not counted", "from the cache", "a short one", "long words"],
)
def test_a_count_that_may_be_right_is_believed(estimated: int, reported: int) -> None:
    assert find_silent_cut(estimated, reported) is None


def test_a_full_context_is_known_by_its_round_number() -> None:
    assert all(map(is_full_context, (2048, 4095, 4096, 8190, 6400)))
    assert not any(map(is_full_context, (0, 256, 2000, 4000, 4160)))
