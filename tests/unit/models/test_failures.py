import pytest
from pydantic import SecretStr

from agent_runtime.config import OpenAISettings
from agent_runtime.models.failures import ApiError, Failures
from agent_runtime.text.redaction import Redactor

SETTINGS = OpenAISettings(
    api_key=SecretStr("sk-very-secret"),
    base_url="http://user:p%40ss@models.example:8080/v1?token=hush",
    model="tiny",
    api="responses",
)
REDACTOR = Redactor(["sk-very-secret"])
REDACTOR.remember_literal("openai.base_url", str(SETTINGS.base_url))
FAILURES = Failures(SETTINGS, REDACTOR, answer_bytes=100)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "context_length_exceeded", "too long"),
        (400, "", "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
        (400, "exceed_context_size_error", "the request exceeds the available context size, try increasing it"),
        (500, "", "the request exceeds the available context size. try increasing the context size"),
        (400, "", "the input length exceeds the context length"),
        (400, "", "prompt is too long: 210000 tokens > 200000 maximum"),
        (413, "", "Request Entity Too Large"),
        (None, "context_length_exceeded", "Your input exceeds the context window of this model."),
    ],
)
def test_a_context_overflow_is_known_by_its_code_or_by_its_words(status: int | None, code: str, message: str) -> None:
    failure = FAILURES.translate(ApiError(message, status, code))
    assert (failure.code, failure.retry) == ("model_context_overflow", False)
    assert "openai.model" in failure.message


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "model_not_found", "The model `tiny` does not exist or you do not have access to it."),
        (404, "", "model 'tiny' not found, try pulling it first"),
        (404, "NotFoundError", "The model `tiny` does not exist."),
        (403, "model_not_found", "Project `p` does not have access to model `tiny`"),
        (400, "", "Invalid model name passed in model=tiny. Call `/v1/models` to view available models"),
        (404, "DeploymentNotFound", "The API deployment for this resource does not exist."),
        (404, "NOT_FOUND", "models/tiny is not found for API version v1main, or is not supported for generateContent."),
        (400, "", "Model unloaded."),
    ],
)
def test_an_unknown_model_is_named_with_its_endpoint(status: int, code: str, message: str) -> None:
    failure = FAILURES.translate(ApiError(message, status, code))
    assert failure.code == "model_unknown"
    assert "'tiny'" in failure.message
    assert "http://models.example:8080/v1 " in failure.message


def test_a_404_without_a_word_of_models_names_the_other_api_and_the_base_url() -> None:
    failure = FAILURES.translate(ApiError("Not Found", 404))
    assert failure.code == "model_unknown"
    assert "set openai.api to chat_completions" in failure.message
    assert "openai.base_url" in failure.message
    assert failure.message.endswith("It says: Not Found")


@pytest.mark.parametrize(
    ("said", "retried", "reached"),
    [
        (ApiError("slow down", 429, after_s=3), True, True),
        (ApiError("oops", 500), True, False),
        (ApiError("", 503), True, False),
        (ApiError("overloaded", None, "server_error"), True, True),
        (ApiError("You exceeded your current quota", 429, "insufficient_quota"), False, True),
    ],
)
def test_an_overloaded_endpoint_is_asked_again_unless_the_quota_is_used_up(
    said: ApiError, *, retried: bool, reached: bool
) -> None:
    failure = FAILURES.translate(said)
    assert (failure.code, failure.retry, failure.reached) == ("model_overloaded", retried, reached)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "invalid_api_key", "Incorrect API key provided: tiny-key."),
        (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key, not tiny-key."),
        (400, "", "Incorrect API key provided: tiny-key. You can obtain an API key from the console."),
        (400, "no_db_connection", "No connected db."),
        (None, "", "invalid api key: tiny-key"),
    ],
)
def test_a_wrong_key_is_known_by_its_status_or_by_its_words_which_may_repeat_it(
    status: int | None, code: str, message: str
) -> None:
    failure = FAILURES.translate(ApiError(message, status, code))
    assert (failure.code, failure.retry) == ("model_key_refused", False)
    assert "set OPENAI_API_KEY" in failure.message
    assert "tiny-key" not in failure.message


def test_a_web_page_that_forbids_is_not_about_the_key() -> None:
    page = "<!DOCTYPE html><html><head><title>Attention\nRequired!</title></head><body>Blocked</body></html>"
    failure = FAILURES.translate(ApiError(page, 403))
    assert failure.code == "model_failed"
    assert "'Attention Required!'" in failure.message
    assert "<" not in failure.message


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "content_filter", "The response was filtered due to the prompt triggering the policy."),
        (400, "", "It triggered Azure OpenAI's content management policy."),
        (400, "invalid_prompt", "Your prompt was flagged as potentially violating our usage policy."),
        (None, "content_filter", "It was filtered."),
    ],
)
def test_a_filter_that_holds_the_question_back_has_refused_it(status: int | None, code: str, message: str) -> None:
    failure = FAILURES.translate(ApiError(message, status, code))
    assert (failure.code, failure.retry, failure.complaint) == ("model_refused", False, "")
    assert message in failure.message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "registry.ollama.ai/library/gemma3:1b does not support tools"),
        (500, "tools param requires --jinja flag"),
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (404, "No endpoints found that support tool use. To learn more, see the documentation."),
        (400, "`tool calling` is not supported with this model"),
    ],
)
def test_a_model_that_calls_no_tools_is_told_with_the_remedies(status: int, message: str) -> None:
    failure = FAILURES.translate(ApiError(message, status))
    assert (failure.code, failure.retry, failure.reached) == ("model_failed", False, True)
    for remedy in ("openai.model", "--jinja", "--enable-auto-tool-choice", message):
        assert remedy in failure.message


@pytest.mark.parametrize(
    ("said", "vague"),
    [
        (ApiError("Something is wrong.", 400), True),
        (ApiError("Something is wrong.", 422), True),
        (ApiError("Something is wrong.", 500), True),
        (ApiError("Something is wrong.", 502), False),
        (ApiError("Slow down.", 429), False),
        (ApiError("prompt is too long", 400), False),
        (ApiError("API key not valid.", 400), False),
        (ApiError("it does not support tools", 400), False),
        (ApiError("no such model", 400), False),
        (ApiError("", 400, "content_filter"), False),
    ],
)
def test_only_a_failure_without_a_known_reason_may_be_about_the_schema(said: ApiError, *, vague: bool) -> None:
    assert FAILURES.translate(said).vague is vague


def test_anything_else_that_is_rejected_is_told_in_the_endpoints_words() -> None:
    failure = FAILURES.translate(ApiError("temperature must be\n positive", 400, "bad", "temperature"))
    assert (failure.code, failure.retry) == ("model_failed", False)
    assert failure.message.endswith("rejected the request (HTTP 400): temperature must be positive")


def test_no_message_shows_the_key_or_the_credentials_of_the_base_url() -> None:
    echo = "sk-very-secret user:p%40ss@ p@ss token=hush"
    failures = [FAILURES.translate(ApiError(echo, status)) for status in (400, 401, 403, 404, 413, 429, 500, None)]
    failures += [
        FAILURES.make_unreachable(echo),
        FAILURES.make_cut_off(echo),
        FAILURES.make_unreadable(echo),
        FAILURES.make_refused(echo),
    ]
    for failure in failures:
        for secret in ("sk-very-secret", "p@ss", "p%40ss", "token=hush"):
            assert secret not in failure.message


def test_a_foreign_text_is_cut() -> None:
    assert len(FAILURES.translate(ApiError("x" * 10_000, 400)).message) < 500
