"""The failures of a model, in words for the operator: what is wrong, and which setting changes it."""

import re
from dataclasses import dataclass

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.usage import Usage
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
    r"|model.{0,120}(not found|does not exist|is not available|not loaded)|no (such )?model",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 300
_QUOTED_NOT = (401,)


class Failure(Exception):  # noqa: N818 - an outcome on its way to the code that retries; callers see a ModelError
    """One request failed. `retry`: another may succeed, after `after_s` seconds if the endpoint said so.

    `reached` is False if the endpoint was unreachable or failed, which counts against its circuit. `complaint` is its
    objection to the request itself, for `Dialect.adapt_to`.
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
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry = retry
        self.after_s = after_s
        self.reached = reached
        self.complaint = complaint
        self.usage = Usage()

    @property
    def may_pass(self) -> bool:
        """True for an outage, after which the same request may succeed."""
        return self.code == "model_unavailable" or (
            self.retry and (not self.reached or self.code == "model_overloaded")
        )

    def to_error(self, usage: Usage) -> ModelError:
        return ModelError(self.message, code=self.code, usage=usage, may_pass=self.may_pass)


@dataclass(frozen=True, slots=True)
class ApiError:
    """An error as the endpoint reports it. `status` is None if it came inside a stream."""

    message: str
    status: int | None = None
    code: str = ""
    param: str = ""
    after_s: float | None = None

    @property
    def all(self) -> str:
        return f"{self.code} {self.param} {self.message}"


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

    def make_timed_out(self) -> Failure:
        return Failure(
            "model_unreachable",
            f"The model endpoint {self._where} sent nothing for {self._settings.timeout_s:g} s: check that it runs, or "
            "allow more with openai.timeout_s.",
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

    def make_truncated(self) -> Failure:
        return Failure(
            "model_answer_truncated",
            f"The answer of {self._settings.model!r} was cut off at its limit of tokens: ask for less, allow the task "
            "more tokens, or give the model a larger context at the endpoint.",
        )

    def make_empty(self) -> Failure:
        return Failure(
            "model_answer_empty",
            f"The model {self._settings.model!r} at {self._where} gave an empty answer: ask again, or in other words, "
            "or use a more capable model (openai.model).",
        )

    def make_refused(self, words: str) -> Failure:
        return Failure(
            "model_refused",
            f"The model {self._settings.model!r} declined to answer: {self.clean(words) or 'it gave no reason.'}",
        )

    def translate(self, said: ApiError) -> Failure:
        """Return the failure for an error that the endpoint itself reported."""
        model, words = self._settings.model, self.clean(said.message)
        status = f"HTTP {said.status}" if said.status else self.clean(said.code) or "an error"
        if said.status in {401, 403} and not _NO_MODEL.search(said.all):
            quote = "" if said.status in _QUOTED_NOT else f"; it says: {words}"
            return Failure(
                "model_key_refused",
                f"{self._where} refused the key ({status}{quote}): set OPENAI_API_KEY, or openai.api_key, to a key "
                f"that may use {model!r} there.",
            )
        if said.status == 413 or _OVERFLOW.search(said.all):  # noqa: PLR2004 - Content Too Large, as gateways say it
            return Failure(
                "model_context_overflow",
                f"The question is longer than {model!r} at {self._where} can read: offer it fewer tools, ask for less, "
                f"or use a model with a larger context (openai.model). It says: {words}",
            )
        if said.status in {400, 403, 404, 422, None} and _NO_MODEL.search(said.all):
            return Failure(
                "model_unknown",
                f"{self._where} has no model {model!r}: set openai.model to one that it has. It says: {words}",
            )
        return self._translate_other(said, status, words)

    def _translate_other(self, said: ApiError, status: str, words: str) -> Failure:
        code = said.status
        if code == 404:  # noqa: PLR2004 - Not Found
            other = "chat_completions" if self._settings.api == "responses" else "responses"
            return Failure(
                "model_unknown",
                f"{self._where} has no {self._settings.api} API, or no model {self._settings.model!r} (HTTP 404): "
                f"check openai.base_url, which usually ends in /v1, openai.model, or set openai.api to {other}.",
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
                complaint=said.all if broken and re.search("grammar|schema", said.all) else "",
            )
        return Failure(
            "model_failed",
            f"{self._where} rejected the request ({status}): {words or 'it did not say why'}",
            complaint=said.all,
        )
