"""A language model at an endpoint with the OpenAI API: with retries, time limits and a circuit breaker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, ModelStatus
from agent_runtime.domain.usage import Usage
from agent_runtime.importing import one_import_at_a_time
from agent_runtime.live.breaker import CircuitBreaker
from agent_runtime.models import discovery
from agent_runtime.models.dialect import Dialect, Output
from agent_runtime.models.exchange import Bounds, Exchange
from agent_runtime.models.failures import Failure, Failures
from agent_runtime.telemetry import log_debug
from agent_runtime.text.redaction import Redactor

if TYPE_CHECKING:
    from agent_runtime.models.openai_agents import Endpoint

log = structlog.get_logger()

_BACKOFF = wait_exponential_jitter(multiplier=0.5, max=8, jitter=0.5)
_LONGEST_WAIT_S = 30.0
"""The longest wait by a Retry-After; the whole answer is bounded by `openai.answer_timeout_s`."""


class OpenAIModel:
    """The `LanguageModel` of the settings. There is one in a process, so that its connections and its dialect are
    shared.

    Nothing is imported or opened before the first question. Close it with `aclose`, or use it as a context manager.
    `answer_bytes` limits the text of an answer (G11). `clock` and `sleep` are for tests.
    """

    def __init__(
        self,
        settings: OpenAISettings,
        redactor: Redactor,
        *,
        answer_bytes: int = 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._given = settings
        self._redactor = redactor
        self._answer_bytes = answer_bytes
        self._sleep = sleep
        self._circuit = CircuitBreaker(clock)
        self._start_over(settings)
        self._last_error: str | None = None
        self._opening, self._finding = asyncio.Lock(), asyncio.Lock()
        self._endpoint: Endpoint | None = None
        self._replaced: list[Endpoint] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Idempotent; a later question opens new ones."""
        endpoints = [*self._replaced, *([self._endpoint] if self._endpoint else ())]
        self._endpoint, self._replaced = None, []
        for endpoint in endpoints:
            await endpoint.aclose()

    def status(self) -> ModelStatus:
        settings = self._settings
        api: Literal["responses", "chat_completions"] = (
            "responses" if settings.api == "responses" else "chat_completions"
        )
        return ModelStatus(
            settings.endpoint, settings.model or None, api, self._circuit.state, self._output, self._last_error
        )

    async def identify(self) -> str:
        """See `LanguageModel`. A model that was found before stays the one, as long as the endpoint lists it."""
        try:
            await self._find_model(again=True)
        except Failure as failure:
            self._last_error = failure.message
            raise failure.to_error(Usage()) from failure
        return self._settings.model

    async def list_names(self) -> list[str]:
        """Return the names of the models that the endpoint lists. Raises: ModelError."""
        try:
            return await discovery.list_names(self._settings, self._failures)
        except Failure as failure:
            raise failure.to_error(Usage()) from failure

    async def _find_model(self, *, again: bool = False) -> None:
        """Ask the endpoint for the name of its model, where neither the settings have it nor was it found before."""
        if self._given.model:
            return
        async with self._finding:
            if not again and self._settings.model:
                return
            name = await discovery.find_model(self._given, self._failures, self._settings.model)
            async with self._opening:
                if name != self._settings.model:
                    self._go_on_with(name)

    def _start_over(self, settings: OpenAISettings) -> None:
        """Use these settings, and forget what was learned of the model of others."""
        self._settings = settings
        self._failures = Failures(settings, self._redactor, answer_bytes=self._answer_bytes)
        self._bounds = Bounds(settings, self._failures)
        self._dialect = Dialect(streams=settings.stream, options=_list_options(settings))
        self._output: Output | None = None

    def _go_on_with(self, name: str) -> None:
        self._start_over(self._given.model_copy(update={"model": name}))
        if self._endpoint:  # requests may still be under way there
            self._replaced.append(self._endpoint)
            self._endpoint = None
        log.info("model_found", endpoint=self._settings.endpoint, model=name)

    async def answer(self, request: ModelRequest) -> ModelAnswer:
        """See `LanguageModel`. `usage` is the sum over all its requests, as far as the endpoint reports it, else
        estimated.
        """
        exchange = Exchange(request)
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s) as limit:
                answer = await self._answer_with_retries(exchange)
        except Failure as failure:
            if failure.code != "model_unavailable":
                self._last_error = failure.message
            raise failure.to_error(exchange.spent) from failure
        except TimeoutError as error:
            if not limit.expired():
                raise
            slow = self._failures.make_too_slow()
            if exchange.hears_answer:
                self._circuit.record_success()
            else:
                self._circuit.record_failure()
            self._last_error = slow.message
            raise slow.to_error(exchange.spent) from error
        self._last_error = None
        spent = exchange.spent
        log_debug("model_answered", model=self._settings.model, endpoint=self._settings.endpoint, tokens=spent.tokens)
        return replace(answer, usage=spent, counted=answer.usage.tokens > 0)

    async def _answer_with_retries(self, exchange: Exchange) -> ModelAnswer:
        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(self._settings.max_retries + 1),
            wait=_next_wait_s,
            retry=retry_if_exception(self._should_retry),
            reraise=True,
        )
        return await retrying(self._ask_through_circuit, exchange)

    def _should_retry(self, error: BaseException) -> bool:
        return isinstance(error, Failure) and error.retry and self._circuit.state == "closed"

    async def _ask_through_circuit(self, exchange: Exchange) -> ModelAnswer:
        """Make one request if the circuit admits it, and record its outcome."""
        wait_s = self._circuit.admit()
        if wait_s is not None:
            raise self._failures.make_unavailable(wait_s, self._last_error)
        try:
            answer = await self._ask_in_dialect(exchange)
        except Failure as failure:
            if failure.reached:
                self._circuit.record_success()
            else:
                self._circuit.record_failure()
            raise
        except BaseException:
            self._circuit.record_cancellation()
            raise
        self._circuit.record_success()
        return answer

    async def _ask_in_dialect(self, exchange: Exchange) -> ModelAnswer:
        """Ask with all options that the endpoint is not known to reject, and without those that it rejects now.

        If a request with a schema or with functions fails for no known reason, these may be it: it is made once more
        with looser ones. The first failure stands if that fails in the same way.
        """
        request = exchange.request
        await self._find_model()
        endpoint = await self._get_endpoint()
        if request.model is not None and request.model != self._settings.model:
            raise self._failures.make_changed(request.model)
        held = request.schema is not None
        dialect = replace(self._dialect, output=self._output or self._dialect.output)
        tried, first = {dialect}, None
        while True:
            try:
                answer = await self._bounds.ask(endpoint, exchange, dialect.shape(request), dialect)
            except Failure as failure:
                lower = dialect.adapt_to(failure.complaint, schema=held)
                if lower is None and failure.vague and first is None:
                    lower, first = dialect.relax(request), failure
                if lower is None or lower in tried:
                    raise (first if first and failure.vague else failure) from failure
                log.info("model_asked_for_less", endpoint=self._settings.endpoint, said=failure.message)
                dialect = lower
                tried.add(dialect)
            else:
                self._dialect = self._dialect.learn_from(dialect)
                if held and dialect.lasting:
                    self._output = dialect.output
                return answer

    async def _get_endpoint(self) -> "Endpoint":
        async with self._opening:
            if self._endpoint is None:
                self._endpoint = await asyncio.to_thread(self._open_endpoint)
            return self._endpoint

    def _open_endpoint(self) -> "Endpoint":
        with one_import_at_a_time:
            from agent_runtime.models.openai_agents import Endpoint  # noqa: PLC0415 - takes 2 s, so not on the loop

        return Endpoint(self._settings, self._failures, self._redactor, answer_bytes=self._answer_bytes)


def _list_options(settings: OpenAISettings) -> frozenset[str]:
    """Return the names of the parameters that are sent although an endpoint may not know them."""
    return frozenset({"store"} if settings.temperature is None else {"store", "temperature"})


def _next_wait_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.after_s if isinstance(error, Failure) else None
    return _BACKOFF(state) if asked is None else min(asked, _LONGEST_WAIT_S)
