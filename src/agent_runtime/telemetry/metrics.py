"""Metrics for Prometheus that are measured as events happen. Values that can be read on request are not kept here.

Labels never contain ids of tasks or other unbounded values.
"""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from agent_runtime.domain.events import (
    EventRecord,
    ModelAnswered,
    PlanProposed,
    StepCompleted,
    StepFailed,
    TaskFailed,
    TaskWaiting,
    ToolReturned,
)
from agent_runtime.domain.task import Task

MOST_TOOLS = 300
"""The maximum number of tools with labels of their own: a server that keeps renaming tools cannot fill memory."""

OTHER = "other"

_SPENDING = PlanProposed | ModelAnswered | StepFailed | TaskFailed | TaskWaiting

_WORK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_APPEND_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The metrics of one service, in its own registry, since several services may share a process.

    All come from the journal: only committed events count. They start at zero with each start of the service.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Histogram(
            "agent_runtime_call_duration_seconds",
            "How long tool calls took, by server, tool and outcome (ok, error); those without an answer are not in it.",
            ("server", "tool", "outcome"),
            registry=self.registry,
            buckets=_WORK_S,
        )
        steps = Histogram(
            "agent_runtime_step_duration_seconds",
            "How long steps took from their start to their end, a person's answer in between included.",
            ("outcome",),
            registry=self.registry,
            buckets=_WORK_S,
        )
        self._completed, self._failed = steps.labels("completed"), steps.labels("failed")
        self._appends = Histogram(
            "agent_runtime_store_append_duration_seconds",
            "How long appends to the journal took until they were durable, the wait for others included.",
            registry=self.registry,
            buckets=_APPEND_S,
        )
        self._answers = Histogram(
            "agent_runtime_model_answer_duration_seconds",
            "How long a model took for an answer of an agent step, retries included.",
            registry=self.registry,
            buckets=_WORK_S,
        )
        tokens = Counter(
            "agent_runtime_model_tokens",
            "Tokens of language models, as their endpoints count them: for plans and for agent steps.",
            ("direction",),
            registry=self.registry,
        )
        self._tokens_in, self._tokens_out = tokens.labels("input"), tokens.labels("output")
        self._taken_over = Counter(
            "agent_runtime_jobs_taken_over",
            "Jobs of dead workers that this replica has found and given to the living ones.",
            registry=self.registry,
        )
        self._by_tool: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}

    def record_taken_over(self, jobs: int) -> None:
        """Record that this replica has found the jobs of a dead worker."""
        self._taken_over.inc(jobs)

    def record_append(self, task: Task, records: Sequence[EventRecord], seconds: float) -> None:
        """Record one append that took `seconds`. `task`: the state after `records`."""
        self._appends.observe(seconds)
        for record in records:
            event = record.event
            if isinstance(event, ToolReturned):
                if (called := _find_called_tool(task, event.step_id)) is not None:
                    ok, error = self._of_tool(*called)
                    (error if event.result.is_error else ok).observe(event.duration_ms / 1000)
            elif isinstance(event, ModelAnswered):
                self._answers.observe(event.duration_ms / 1000)
            elif isinstance(event, StepCompleted | StepFailed):
                step = task.steps.get(event.step_id)
                if step is not None and step.started_at is not None:  # it may be refused before it starts
                    steps = self._completed if isinstance(event, StepCompleted) else self._failed
                    steps.observe((record.at - step.started_at).total_seconds())
            if (
                isinstance(event, PlanProposed | ModelAnswered | StepFailed | TaskFailed | TaskWaiting)
                and event.usage.tokens
            ):
                self._tokens_in.inc(event.usage.input_tokens)
                self._tokens_out.inc(event.usage.output_tokens)

    def _of_tool(self, server: str, tool: str) -> tuple[Histogram, Histogram]:
        """Return the histograms of successful and failed calls. The names come from approved plans: they are known."""
        known = self._by_tool.get((server, tool))
        if known is None:
            if len(self._by_tool) >= MOST_TOOLS and (server, tool) != (OTHER, OTHER):
                return self._of_tool(OTHER, OTHER)
            ok, error = (self._calls.labels(server, tool, outcome) for outcome in ("ok", "error"))
            known = self._by_tool[server, tool] = ok, error
        return known


def _find_called_tool(task: Task, step_id: str) -> tuple[str, str] | None:
    """Return the server and the tool of the latest call of a step."""
    step = task.steps.get(step_id)
    if step is None:
        return None
    if step.call is not None:
        return step.call.server, step.call.tool
    server, slash, tool = step.sent[-1].partition("/") if step.sent else ("", "", "")
    return (server, tool) if slash else None
