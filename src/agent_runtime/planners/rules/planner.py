"""The offline planner: a grammar of short English instructions, bound to tools by role. It uses no model and never
guesses.
"""

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.planners.rules.binder import Binder
from agent_runtime.planners.rules.reader import read
from agent_runtime.planners.rules.refusals import CAPABILITIES, HELP, REMEDY, make_refusal

_MAX_GOAL = 65_536


class RulePlanner:
    """Plans a prompt if a small grammar understands every part of it without doubt; else declines the whole prompt.

    It is deterministic, and linear in the length of the prompt. It prefers the tools of built-in servers, keeps the
    order of the prompt, and writes nothing that the prompt does not literally ask for.
    """

    name = "rules"
    needs_model = False
    builtin_first = True

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return a plan for the prompt and the feedback, read as one text. The previous plan is ignored.

        Raises: MissingToolError where no tool can do a part, PlanningError where a part is not understood. Both name
        the part, what can be done, and how to configure a model.
        """
        prompt = "\n".join((request.prompt, *request.feedback)).strip()
        _check(prompt)
        binder = Binder(request.tools, request.max_steps)
        for part, action in read(prompt):
            binder.take(part, action)
        if not binder.steps:
            raise make_refusal(prompt, HELP)
        return PlanAnswer(Plan(goal=prompt, steps=binder.steps))


def _check(prompt: str) -> None:
    if not any(char.isalnum() for char in prompt):
        raise PlanningError(f"The prompt holds no instruction. {CAPABILITIES}. {REMEDY}.")
    if len(prompt) > _MAX_GOAL:
        raise make_refusal(prompt[:80], f"begins a prompt of {len(prompt)} characters, and the limit is {_MAX_GOAL}")
    if any("\ud800" <= char <= "\udfff" for char in prompt) or "\0" in prompt:
        raise PlanningError(f"The prompt holds characters that are no text; leave them out. {CAPABILITIES}. {REMEDY}.")
