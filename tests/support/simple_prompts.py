"""Twenty requests that one call of a built-in tool does, and how many plans for them a model gets right."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.plan_requests import PlanRequest
from agent_runtime.domain.tools import Tool
from agent_runtime.models.model import OpenAIModel
from agent_runtime.planners.model.planner import ModelPlanner
from agent_runtime.text.redaction import Redactor

Calls = Mapping[str, Mapping[str, Any]]
"""The calls that do what is asked: the tool, and the arguments that it must have."""


def _calculate(tool: str, a: float, b: float, expression: str) -> Calls:
    return {f"calculator/{tool}": {"a": a, "b": b}, "calculator/evaluate": {"expression": expression}}


PROMPTS: Mapping[str, Calls] = {
    "Read the file notes.txt": {"filesystem/read_file": {"path": "notes.txt"}},
    "List the files in the folder reports": {"filesystem/list_directory": {"path": "reports"}},
    'Write "hello world" to hello.txt': {"filesystem/write_file": {"path": "hello.txt", "content": "hello world"}},
    'Append "all done" to log.txt': {"filesystem/append_file": {"path": "log.txt", "content": "all done"}},
    "Create a folder called archive": {"filesystem/create_directory": {"path": "archive"}},
    "Find all files that match *.csv": {"filesystem/search_files": {"pattern": "*.csv"}},
    "How large is the file notes.txt?": {"filesystem/file_info": {"path": "notes.txt"}},
    "Add 15 and 27": _calculate("add", 15, 27, "15 + 27"),
    "Subtract 8 from 50": _calculate("subtract", 50, 8, "50 - 8"),
    "Multiply 6 by 7": _calculate("multiply", 6, 7, "6 * 7"),
    "Divide 144 by 12": _calculate("divide", 144, 12, "144 / 12"),
    "Evaluate the expression 2 * (3 + 4)": {"calculator/evaluate": {"expression": "2 * (3 + 4)"}},
    'Add "buy milk" to my todos': {"todo/add": {"text": "buy milk"}},
    "List my open todos": {"todo/list": {}},
    'Mark the todo "buy milk" as done': {"todo/complete": {"text": "buy milk"}},
    "Delete the todo with the id 3": {"todo/delete": {"id": 3}},
    "Count the words of this text: The quick brown fox": {"text/count_words": {"text": "The quick brown fox"}},
    "Summarize this text: It rains. It pours.": {"text/summarize": {"text": "It rains. It pours."}},
    "Find the word error in this text: no error here": {"text/find": {"text": "no error here", "query": "error"}},
    "Give the first 2 lines of this text: one two": {"text/head": {"text": "one two", "lines": 2}},
}


@dataclass(frozen=True)
class Outcome:
    """The plan for one request, or why there is none."""

    prompt: str
    seconds: float
    plan: Plan | None = None
    error: str = ""

    @property
    def is_right(self) -> bool:
        """Return whether the plan is the one call that was asked for."""
        if self.plan is None or len(self.plan.steps) != 1 or not isinstance(self.plan.steps[0], ToolStep):
            return False
        step = self.plan.steps[0]
        wanted = PROMPTS[self.prompt].get(step.key)
        return wanted is not None and wanted.items() <= step.arguments.items()


async def plan_all(settings: OpenAISettings, tools: Sequence[Tool]) -> AsyncGenerator[Outcome]:
    """Have the model plan each of the requests, as the service would, and yield what comes of it."""
    async with OpenAIModel(settings, Redactor()) as model:
        planner = ModelPlanner(model, fields=settings.plan_fields)
        for prompt in PROMPTS:
            yield await _plan(planner, prompt, tools)


async def _plan(planner: ModelPlanner, prompt: str, tools: Sequence[Tool]) -> Outcome:
    known = {tool.key: tool for tool in tools}
    limits = Limits()

    def judge(plan: Plan) -> list[Any]:
        return list(find_faults(plan, limits, known, agent_steps=True))

    began = time.perf_counter()
    try:
        answer = await planner.plan(PlanRequest(prompt, tools, limits.max_steps, faults=judge, agent_steps=True))
    except PlanningError as error:
        return Outcome(prompt, time.perf_counter() - began, error=f"{error.code}: {error}")
    return Outcome(prompt, time.perf_counter() - began, answer.plan)
