"""The ExecutorAgent: builds the request to a model for an agent step, and records its answer.

A model proposes; it does nothing. Its answer is written to the journal first. Then each call in it goes through the
broker like any other call. Results of tools are shown to the model as data, and allow it nothing more.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from itertools import chain
from math import isfinite
from typing import Any

import structlog
from pydantic_core import from_json, to_json

from agent_runtime.config import LimitSettings
from agent_runtime.domain.budget import seconds_left, tokens_left
from agent_runtime.domain.call_rules import describe_full_journal
from agent_runtime.domain.conversation import INSTRUCTIONS, conversation, offer_tools
from agent_runtime.domain.drafting import NO_MODEL
from agent_runtime.domain.errors import ModelError, ReferenceFailedError
from agent_runtime.domain.events import (
    BudgetExceeded,
    ModelAnswered,
    ModelCall,
    Objection,
    StepFailed,
    StepStarted,
    TaskFailed,
)
from agent_runtime.domain.kept_results import fit_result
from agent_runtime.domain.model_arguments import call_without_optional_nulls
from agent_runtime.domain.model_requests import ModelAnswer, ModelRequest, OfferedTool
from agent_runtime.domain.plan import AgentStep
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.thoughts import cut_thoughts
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.usage import estimate_tokens
from agent_runtime.domain.values import LARGE_BYTES, JsonObject, JsonValue, shorten
from agent_runtime.domain.written_calls import find_written_call
from agent_runtime.live.interruption import run_until
from agent_runtime.live.progress import Piece, Progress
from agent_runtime.services.ports import LanguageModel
from agent_runtime.services.run import Run

log = structlog.get_logger()

_LEAST_ANSWER = 16
_MOST_CALLS = 64
_LONGEST_NAME = 256


_FAILURES: Mapping[Objection, tuple[str, str]] = {
    "call_as_text": (
        "model_call_as_text",
        "The model wrote a call as text and did not make it: use one that can call functions (openai.model)",
    ),
    "only_thoughts": (
        "model_answer_empty",
        "The model gave nothing but thoughts: allow it more tokens, or use another one (openai.model)",
    ),
}


@dataclass(frozen=True, slots=True)
class Question:
    """The next request to a model for a step. `timeout_s` is how long the answer may take.

    `names`: the spellings of the tools that it offers. `is_last`: there is no turn to tell the model what is wrong with
    the answer, or it was told. `owes_call`: its last answer was a call written as text.
    """

    step_id: str
    turn: int
    request: ModelRequest
    timeout_s: float
    names: frozenset[str] = frozenset()
    is_last: bool = False
    owes_call: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """The outcome of a question: an answer or a failure; neither if the run stopped waiting for it.

    `outage`: why the model could not be asked, if that may pass.
    """

    question: Question
    answer: ModelAnswered | None = None
    failure: StepFailed | None = None
    outage: ModelError | None = None

    @property
    def step_id(self) -> str:
        return self.question.step_id

    def stage(self, run: Run) -> None:
        """Stage the answer, or the failure if the task still goes on.

        Nothing is staged if the task has ended: a cancellation waits for open calls, but not for questions.
        """
        if run.task.terminal:
            return
        if self.answer is not None:
            run.stage(self.answer)
        elif self.failure is not None and run.task.status is TaskStatus.EXECUTING and not run.task.cancel_requested:
            run.stage(self.failure)


class ExecutorAgent:
    """Asks the model for agent steps, one turn at a time. `model` is None if none is configured."""

    def __init__(self, model: LanguageModel | None, progress: Progress, limits: LimitSettings) -> None:
        self._model = model
        self._progress = progress
        self._limit = limits.stored_result_bytes
        self._argument_bytes = limits.argument_bytes
        self._journal_bytes = limits.journal_bytes

    def ask(self, run: Run, step: AgentStep, in_flight: AbstractSet[str]) -> Question | None:
        """Stage the start of a step, and return the next question to its model.

        Return None if the model cannot be asked; the failure is staged then. If the task's tokens do not suffice for
        the question, the task fails once nothing is `in_flight` any more.
        """
        state = run.task.steps[step.id]
        if self._model is None:
            run.stage(StepFailed(step_id=step.id, code="no_model", message=f"{NO_MODEL}."))
            return None
        if run.task.journal_bytes > self._journal_bytes:
            message = f"The model was not asked: {describe_full_journal(run.task, self._journal_bytes)}"
            run.stage(StepFailed(step_id=step.id, code="journal_full", message=message))
            return None
        try:
            items = conversation(run.task, step, self._limit, self._argument_bytes)
        except ReferenceFailedError as error:
            run.stage(StepFailed(step_id=step.id, code=error.code, message=str(error)))
            return None
        tools = offer_tools(step, run.task.definitions)
        left = _answer_tokens(run.task, items, tools)
        if left is not None and left < _LEAST_ANSWER:
            if not in_flight:
                self._give_up(run, step)
            return None
        if state.status is StepStatus.PENDING:
            run.stage(StepStarted(step_id=step.id, title=step.title))
        task_id = run.task.task_id
        request = ModelRequest(
            INSTRUCTIONS,
            items,
            tools,
            name=step.id,
            max_tokens=left,
            model=_name_model(run.task),
            on_text=lambda text: self._progress.say(task_id, Piece(step.id, text)),
        )
        turn = len(state.turns) + 1
        objections = [earlier.objection for earlier in state.turns]
        return Question(
            step.id,
            turn,
            request,
            seconds_left(run.charged_task, in_flight),
            _spell_tools(step),
            is_last=any(objections) or turn == step.max_turns,
            owes_call=objections[-1:] == ["call_as_text"],
        )

    async def answer(self, run: Run, question: Question) -> Answered:
        """Ask the model and wait for its answer, until a cancellation or the end of the service at the latest."""
        assert self._model is not None  # noqa: S101 - without a model, `ask` returns no question
        began = time.perf_counter()
        timeout_s = question.timeout_s if isfinite(question.timeout_s) else None
        try:
            async with asyncio.timeout(timeout_s):
                given = await run_until(self._model.answer(question.request), run.cancel, run.stop)
            if given is None:
                return Answered(question)
            record = partial(self._record_answer, question, given, time.perf_counter() - began)
            is_large = len(given.text) > LARGE_BYTES
            return Answered(question, await asyncio.to_thread(record) if is_large else record())
        except TimeoutError:
            message = f"The budget of seconds ran out: the model did not answer in the {timeout_s:g} s that were left."
            failure = ModelError(message, code="budget_exceeded")
        except ModelError as error:
            failure = error
        except Exception as error:  # a model may send anything; that fails its step only (G9)
            log.exception("model_not_understood", step_id=question.step_id)
            failure = ModelError(f"The answer cannot be used: {type(error).__name__}.", code="model_answer_unreadable")
        log.warning("model_failed", task_id=run.task.task_id, step_id=question.step_id, code=failure.code)
        failed = StepFailed(
            step_id=question.step_id,
            code=failure.code,
            message=str(failure),
            usage=failure.usage,
            duration_ms=round((time.perf_counter() - began) * 1000, 3),
        )
        return Answered(question, failure=failed, outage=failure if failure.may_pass else None)

    def _record_answer(self, question: Question, given: ModelAnswer, seconds: float) -> ModelAnswered:
        if len(given.calls) > _MOST_CALLS:
            message = f"The model asks for {len(given.calls)} calls at once; at most {_MOST_CALLS} are allowed."
            raise ModelError(message, code="model_answer_unreadable", usage=given.usage)
        if any(len(call.name) > _LONGEST_NAME for call in given.calls):
            message = f"The model asks for a function whose name has more than {_LONGEST_NAME} characters."
            raise ModelError(message, code="model_answer_unreadable", usage=given.usage)
        schemas = {tool.name: tool.input_schema for tool in question.request.tools}
        calls = [ModelCall(**_replace_surrogates(call.model_dump())) for call in given.calls]
        text = cut_thoughts(given.text)
        objection = None if given.calls else _find_objection(question, given.text, text)
        if objection is not None and question.is_last:
            code, message = _FAILURES[objection]
            raise ModelError(f"{message}. It said: {shorten(given.text)}", code=code, usage=given.usage)
        is_result = not given.calls and objection is None
        return ModelAnswered(
            step_id=question.step_id,
            turn=question.turn,
            items=tuple(map(_replace_surrogates, given.items)),
            calls=tuple(call_without_optional_nulls(call, schemas.get(call.name, {})) for call in calls),
            answer=fit_result(StoredResult(text=text), self._limit) if is_result else None,
            objection=objection,
            usage=given.usage,
            duration_ms=round(seconds * 1000, 3),
        )

    @staticmethod
    def _give_up(run: Run, step: AgentStep) -> None:
        limit, used = run.task.limits.budget.tokens or 0, run.task.usage.tokens
        message = (
            f"The budget of {limit} tokens ({used} used) does not suffice for the next question of step {step.id!r}."
        )
        run.stage(
            BudgetExceeded(budget="tokens", limit=limit, used=used),
            TaskFailed(code="budget_exceeded", message=message, step_id=step.id),
        )


def _name_model(task: Task) -> str | None:
    """Return the name of the model that the contract names, the only one that may answer."""
    return task.contract.model.model if task.contract and task.contract.model else None


def _replace_surrogates(value: JsonValue) -> Any:
    """Return the same JSON with lone surrogates replaced, which UTF-8 cannot encode. A model may send half a pair."""
    return from_json(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def _find_objection(question: Question, answer: str, text: str) -> Objection | None:
    """Return why an answer without calls is no result; None where it is one. `text` is the answer without thoughts."""
    if question.owes_call or find_written_call(answer, text, question.names) is not None:
        return "call_as_text"
    return None if text.strip() else "only_thoughts"


def _spell_tools(step: AgentStep) -> frozenset[str]:
    """Return the names by which a model may speak of the tools of a step."""
    spellings = ((name, tool.tool, tool.key, f"{tool.server}.{tool.tool}") for name, tool in step.functions.items())
    return frozenset(chain.from_iterable(spellings))


def _answer_tokens(task: Task, items: list[JsonObject], tools: tuple[OfferedTool, ...]) -> int | None:
    """Return how many tokens of the budget are left for the answer after the question; None without a budget."""
    left = tokens_left(task)
    if left is None:
        return None
    shown = [*items, *(tool.input_schema for tool in tools)]
    return left - estimate_tokens(INSTRUCTIONS, to_json(shown).decode())
