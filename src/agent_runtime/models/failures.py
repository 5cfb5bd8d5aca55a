"""The failures of a model, in words for the operator: what is wrong, and which setting changes it."""

import re
from dataclasses import dataclass

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.model_requests import LARGER_CONTEXT
from agent_runtime.domain.usage import Usage
from agent_runtime.models.token_limits import NamedLimits, read_named_limits
from agent_runtime.text.escaping import one_line
from agent_runtime.text.redaction import Redactor

_OVERFLOW = re.compile(
    r"context_length|context[ _](size|length|window)|maximum context|prompt is too long|input length.{0,40}exceed"
    r"|input is too long|too many (input )?tokens",
    re.IGNORECASE,
)
"""The messages of OpenAI and vLLM, llama.cpp (`exceed_context_size_error`), Ollama and LiteLLM, in this order."""

_NO_MODEL = re.compile(
    r"model_not_found|invalid model name|unknown model|deploymentnotfound"
    r"|model.{0,120}(not found|does not exist|is not available|not loaded)|no (such )?model|model (was )?unloaded",
    re.IGNORECASE | re.DOTALL,
)

_WRONG_KEY = re.compile(
    r"api[ _-]?key (is )?(not valid|invalid|incorrect|missing)|(invalid|incorrect|wrong) api[ _-]?key|api_key_invalid"
    r"|no_db_connection|no connected db",
    re.IGNORECASE,
)
"""The messages of a wrong key that come with another status than 401: of Gemini, xAI and LiteLLM's proxy, which looks
for the key in a database that it does not have.
"""

_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicyviolation|usage polic"
    r"|invalid_prompt|flagged",
    re.IGNORECASE,
)
"""The messages of Azure, OpenAI and their gateways for a question that a filter did not let through."""

_NO_TOOLS = re.compile(
    r"not support (the )?(use of )?(tool|function)|tools? .{0,40}not supported|(tool|function)[ _-]calling.{0,40}not "
    r"(be )?support|support tool use|requires --jinja|--enable-auto-tool-choice|--tool-call-parser",
    re.IGNORECASE,
)
"""The messages of Ollama, Groq, OpenRouter, llama.cpp and vLLM, in this order."""

_LONGEST = 300
_BAD_REQUEST = (400, 422)
_PAGE = re.compile(r"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)


class Failure(Exception):  # noqa: N818 - an outcome on its way to the code that retries; callers see a ModelError
    """One request failed. `retry`: another may succeed, after `after_s` seconds if the endpoint said so.

    `reached` is False if the endpoint was unreachable or failed, which counts against its circuit. `complaint` is its
    objection to the request itself, for `Dialect.adapt_to`. `vague`: it may be about the schema in the request,
    although it does not say so. `named` are the limits of tokens that it names.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        retry: bool = False,
        after_s: float | None = None,
        reached: bool = True,
        complaint: str = "",
        vague: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry
        self.after_s = after_s
        self.reached = reached
        self.complaint = complaint
        self.vague = vague
        self.named = NamedLimits()

    @property
    def may_pass(self) -> bool:
        """True for an outage, after which the same request may succeed."""
        return self.code == "model_unavailable" or (
            self.retry and (not self.reached or self.code == "model_overloaded")
        )

    def to_error(self, usage: Usage) -> ModelError:
        return ModelError(
            self.message,
            code=self.code,
            usage=usage,
            may_pass=self.may_pass,
            context_tokens=self.named.context,
            question_tokens=self.named.question,
        )


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error as the endpoint reports it. `status` is None if it came inside a stream.

    `numbers` are those that llama.cpp reports beside the message, as text.
    """

    message: str
    status: int | None = None
    code: str = ""
    param: str = ""
    after_s: float | None = None
    numbers: str = ""

    @property
    def all(self) -> str:
        return f"{self.code} {self.param} {self.message} {self.numbers}"


class Failures:
    """Makes the failures of one model at one endpoint. No message shows credentials or what `redactor` knows."""

    def __init__(self, settings: OpenAISettings, redactor: Redactor, *, answer_bytes: int) -> None:
        self._settings = settings
        self._where = settings.endpoint
        self._most = answer_bytes
        self._redactor = redactor

    def clean(self, text: str) -> str:
        """Return a foreign text on one line, shortened, without secrets and control characters."""
        return one_line(self._redactor.redact_message(text), _LONGEST)

    def make_unreachable(self, reason: str) -> Failure:
        return Failure(
            "model_unreachable",
            f"The model endpoint {self._where} cannot be reached ({self.clean(reason)}): check that it runs, and that "
            "openai.base_url is right.",
            retry=True,
            reached=False,
        )

    def make_timed_out(self, after_s: float | None = None) -> Failure:
        return Failure(
            "model_unreachable",
            f"The model endpoint {self._where} sent nothing for {after_s or self._settings.timeout_s:g} s: check that "
            "it runs, or allow more with openai.timeout_s.",
            retry=True,
            reached=False,
        )

    def make_too_slow(self) -> Failure:
        return Failure(
            "model_unreachable",
            f"The model {self._settings.model!r} at {self._where} did not finish within "
            f"{self._settings.answer_timeout_s:g} s: use a faster model, or allow more with openai.answer_timeout_s.",
            reached=False,
        )

    def make_unavailable(self, wait_s: float, latest: str | None) -> Failure:
        when = f"in {max(wait_s, 1):.0f} s" if wait_s else "just now; ask again when that is done"
        said = f" The latest failure: {latest}" if latest else ""
        return Failure(
            "model_unavailable",
            f"The model endpoint {self._where} failed so often that it is not asked for a while; it is tried "
            f"again {when}.{said}",
        )

    def make_cut_off(self, reason: str) -> Failure:
        return Failure(
            "model_answer_unreadable",
            f"The answer of {self._where} broke off ({self.clean(reason)}): see the endpoint's own log.",
            retry=True,
            reached=False,
        )

    def make_unreadable(self, reason: str, *, retry: bool = True) -> Failure:
        return Failure(
            "model_answer_unreadable",
            f"The answer of {self._where} is not one of the {self._settings.api} API ({self.clean(reason)}): check "
            "that openai.base_url names an OpenAI-compatible API, and that openai.api is the one it speaks.",
            retry=retry,
        )

    def make_too_long(self) -> Failure:
        return Failure(
            "model_answer_unreadable",
            f"The answer of {self._settings.model!r} at {self._where} grew beyond {self._most} bytes and was not read "
            "to its end: ask for less, or use another model (openai.model).",
        )

    def make_truncated(self, why: str = "") -> Failure:
        """Return the failure for an answer that was cut off; `why` says where, and what to do."""
        said = why or "at its limit of tokens: ask for less, or allow longer answers with openai.answer_tokens"
        return Failure("model_answer_truncated", f"The answer of {self._settings.model!r} was cut off {said}.")

    def make_repetitive(self) -> Failure:
        return Failure(
            "model_answer_repetitive",
            f"The model {self._settings.model!r} at {self._where} repeated itself without end and was stopped: ask in "
            "other words, use a more capable model (openai.model), or raise its temperature at the endpoint.",
        )

    def make_unusable_class(self, reason: str) -> Failure:
        return Failure(
            "model_failed",
            f"openai.model_class: {self._settings.model_class}: {self.clean(reason)}. It must name a class or function "
            "that is called with the settings of the section openai, and returns a Model of openai-agents.",
        )

    def make_empty(self) -> Failure:
        return Failure(
            "model_answer_empty",
            f"The model {self._settings.model!r} at {self._where} gave an empty answer: ask again, or in other words, "
            "or use a more capable model (openai.model).",
            vague=True,
        )

    def make_silent(self) -> Failure:
        return Failure(
            "model_answer_unreadable",
            f"The answer of {self._where} is a stream that holds nothing: see the endpoint's own log, or set "
            "openai.stream to false.",
            retry=True,
            reached=False,
            vague=True,
        )

    def make_unlisted(self) -> Failure:
        return Failure(
            "model_unknown",
            f"{self._where} has no list of its models, and openai.model is empty: set openai.model, and see that "
            "openai.base_url is right, which usually ends in /v1.",
        )

    def make_undecided(self, names: str, *, several: bool) -> Failure:
        if not names:
            said = "lists no model: load one there, or set openai.model"
        elif several:
            said = f"lists several models: set openai.model to one of {names}"
        else:
            said = f"lists no model that answers questions: load one there, or set openai.model. It lists {names}"
        return Failure("model_unknown", f"openai.model is empty, and {self._where} {said}.")

    def make_changed(self, approved: str) -> Failure:
        return Failure(
            "definition_changed",
            f"The plan was approved with the model {approved!r}, and {self._where} has {self._settings.model!r} now, "
            "so it was not asked: set openai.model, or make the plan again.",
        )

    def make_refused(self, words: str) -> Failure:
        return Failure(
            "model_refused",
            f"The model {self._settings.model!r} declined to answer: {self.clean(words) or 'it gave no reason.'}",
        )

    def translate(self, said: ApiError) -> Failure:
        """Return the failure for an error that the endpoint itself reported."""
        failure = self._translate(said)
        failure.named = read_named_limits(said.all)
        return failure

    def _translate(self, said: ApiError) -> Failure:
        model, words = self._settings.model, self._quote(said)
        status = f"HTTP {said.status}" if said.status else self.clean(said.code) or "an error"
        if said.status in {*_BAD_REQUEST, 403, None} and _FILTERED.search(said.all):
            return self.make_refused(said.message)
        unknown = _NO_MODEL.search(said.all)
        if not unknown and (wrong := self._read_wrong_key(said, status, words)):
            return wrong
        if said.status == 413 or _OVERFLOW.search(said.all):  # noqa: PLR2004 - Content Too Large, as gateways say it
            return Failure(
                "model_context_overflow",
                f"The question is longer than {model!r} at {self._where} can read: {LARGER_CONTEXT}; or ask for "
                f"less, or use another model (openai.model). It says: {words}",
            )
        if _NO_TOOLS.search(said.all):
            return Failure(
                "model_failed",
                f"The model {model!r} at {self._where} takes no tools, which agent steps need: use a model that can "
                "call tools (openai.model), or start its server with them (llama.cpp: --jinja; vLLM: "
                f"--enable-auto-tool-choice and --tool-call-parser). It says: {words}",
            )
        if said.status in {400, 403, 404, 422, None} and unknown:
            return Failure(
                "model_unknown",
                f"{self._where} has no model {model!r}: set openai.model to one that it has. It says: {words}",
            )
        return self._translate_other(said, status, words)

    def _hint_at(self, said: ApiError) -> str:
        """Return where a field that an error names is set, for a field of `openai.extra_body`; else nothing."""
        named = [name for name in self._settings.extra_body if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said.all)]
        return f" (openai.extra_body sets {', '.join(map(self.clean, named))})" if named else ""

    def _quote(self, said: ApiError) -> str:
        """Return the words of an error, of a web page its title."""
        if not _PAGE.match(said.message):
            return self.clean(said.message)
        title = _TITLE.search(said.message)
        return f"a web page, {self.clean(title[1])!r}" if title else "a web page"

    def _read_wrong_key(self, said: ApiError, status: str, words: str) -> Failure | None:
        """Return the failure for a refused key; None for another error. Words that may repeat the key are not shown."""
        wrong = _WRONG_KEY.search(said.all)
        if said.status == 403 and not wrong:  # noqa: PLR2004 - Forbidden
            if _PAGE.match(said.message):
                return Failure(
                    "model_failed",
                    f"Something in front of {self._where} refuses requests ({status}; it sent {words}): a proxy, a "
                    "firewall or a filter for robots. See openai.base_url, and HTTPS_PROXY.",
                )
            status = f"{status}; it says: {words}"
        elif said.status != 401 and not (wrong and said.status in {*_BAD_REQUEST, 403, None}):  # noqa: PLR2004 - Unauthorized
            return None
        return Failure(
            "model_key_refused",
            f"{self._where} refused the key ({status}): set OPENAI_API_KEY, or openai.api_key, to a key that may use "
            f"{self._settings.model!r} there.",
        )

    def _translate_other(self, said: ApiError, status: str, words: str) -> Failure:
        code = said.status
        if code == 404:  # noqa: PLR2004 - Not Found
            other = "chat_completions" if self._settings.api == "responses" else "responses"
            return Failure(
                "model_unknown",
                f"{self._where} has no {self._settings.api} API, or no model {self._settings.model!r} (HTTP 404): "
                f"check openai.base_url, which usually ends in /v1, openai.model, or set openai.api to {other}. "
                f"It says: {words or 'nothing'}",
            )
        if code and 300 <= code < 400:  # noqa: PLR2004 - a redirection, RFC 9110
            return Failure(
                "model_failed",
                f"{self._where} redirects ({status}), and a prompt is not sent on: set openai.base_url to the "
                "final address.",
            )
        if "insufficient_quota" in said.all:
            return Failure(
                "model_overloaded",
                f"The quota of this key at {self._where} is used up: raise it there, or set another openai.api_key.",
            )
        broken = code is not None and code >= 500  # noqa: PLR2004 - a server error, RFC 9110
        busy = code in {408, 409, 425, 429} or (
            code is None and re.search("server_error|rate_limit|overload", said.all)
        )
        if broken or busy:
            return Failure(
                "model_overloaded",
                f"{self._where} cannot answer now ({status}): try again later, or raise openai.max_retries. "
                f"It says: {words or 'nothing'}",
                retry=True,
                after_s=said.after_s,
                reached=not broken,
                complaint=said.all if broken else "",
                vague=code == 500,  # noqa: PLR2004 - Internal Server Error, not those of gateways
            )
        return Failure(
            "model_failed",
            f"{self._where} rejected the request ({status}): {words or 'it did not say why'}{self._hint_at(said)}",
            complaint=said.all,
            vague=code in {*_BAD_REQUEST, None},  # None: within a stream, as LM Studio says that its model crashed
        )
