"""The offline planner: a grammar of short English instructions, bound to tools by role. It uses no model and never
guesses.
"""

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import AgentStep, Plan, ToolStep
from agent_runtime.domain.plan_requests import PlanAnswer, PlanRequest
from agent_runtime.planners.rules.changes import change_plan, plan_text
from agent_runtime.planners.rules.refusals import (
    CAPABILITIES,
    REMEDY,
    RefusedPartError,
    ask_about,
    extend_refusal,
    make_refusal,
)
from agent_runtime.planners.rules.revising import SAY_CHANGES
from agent_runtime.planners.rules.spelling import suggest_words

_MAX_GOAL = 65_536


class RulePlanner:
    """Plans a prompt if a small grammar understands every part of it without doubt; else declines the whole prompt.

    It is deterministic, and linear in the length of the prompt. It prefers the tools of built-in servers, keeps the
    order of the prompt, and writes nothing that the prompt does not literally ask for.
    """

    name = "rules"
    needs_model = False
    builtin_first = True
    revision_help = f"{SAY_CHANGES}."

    async def plan(self, request: PlanRequest) -> PlanAnswer:
        """Return a plan for the prompt; for a revision, the previous plan as the newest feedback changes it.

        Raises: MissingToolError where no tool can do a part, PlanningError where a part is not understood. Both name
        the part, what can be done, and how to configure a model.
        """
        prompt = "\n".join((request.prompt, *request.feedback)).strip()
        _check(prompt)
        newest = request.feedback[-1] if request.feedback else request.prompt
        try:
            steps = _plan_steps(newest, request)
        except RefusedPartError as error:
            said = self.revision_help if request.feedback else ""
            words = suggest_words(newest, lambda corrected: _is_planned(corrected, request))
            raise extend_refusal(error, ask_about(words), said) from None
        return PlanAnswer(Plan(goal=prompt, steps=steps))


def _plan_steps(newest: str, request: PlanRequest) -> tuple[ToolStep | AgentStep, ...]:
    """Return the steps for a request whose prompt, or newest feedback, is this text. Raises: PlanningError."""
    if request.previous and request.feedback:
        return change_plan(newest, request)
    before = (request.prompt, *request.feedback)[:-1]
    return plan_text("\n".join((*before, newest)), request).steps


def _is_planned(newest: str, request: PlanRequest) -> bool:
    try:
        return bool(_plan_steps(newest, request))
    except PlanningError:
        return False


def _check(prompt: str) -> None:
    if not any(char.isalnum() for char in prompt):
        raise PlanningError(f"The prompt holds no instruction. {CAPABILITIES}. {REMEDY}.")
    if len(prompt) > _MAX_GOAL:
        raise make_refusal(prompt[:80], f"begins a prompt of {len(prompt)} characters, and the limit is {_MAX_GOAL}")
    if any("\ud800" <= char <= "\udfff" for char in prompt) or "\0" in prompt:
        raise PlanningError(f"The prompt holds characters that are no text; leave them out. {CAPABILITIES}. {REMEDY}.")
