"""Plans a prompt, and changes a plan by what is said about it: wishes, and further instructions."""

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.plan import ToolStep
from agent_runtime.domain.plan_requests import PlanRequest
from agent_runtime.planners.rules.binder import Binder
from agent_runtime.planners.rules.clauses import split_clauses
from agent_runtime.planners.rules.lexer import tokenize
from agent_runtime.planners.rules.reader import read
from agent_runtime.planners.rules.refusals import HELP, make_refusal
from agent_runtime.planners.rules.revising import PlanSteps, read_wish
from agent_runtime.planners.rules.vocabulary import COURTESIES, keys_of, word_set

_ADDING = word_set("also then and next finally afterwards afterward additionally furthermore moreover besides after")
_AT_END = {("also",), ("too",), ("as", "well"), ("afterwards",), ("at", "the", "end")}
_READING = frozenset({"read_file", "read_text_file", "list_directory", "search_files"})


def plan_text(text: str, request: PlanRequest) -> Binder:
    """Return the binder with the steps for a text. Raises: PlanningError, MissingToolError."""
    binder = Binder(request.tools, request.max_steps)
    for part, action in read(text):
        binder.take(part, action)
    if not binder.steps:
        raise make_refusal(text, HELP)
    return binder


def change_plan(newest: str, request: PlanRequest) -> PlanSteps:
    """Return the steps of the previous plan as the newest feedback changes them.

    Words such as `it` refer to earlier instructions as long as the previous plan is the one that these make; a plan
    that somebody wrote or edited has no such words. Raises: PlanningError, MissingToolError.
    """
    change = _Change(request)
    return change.follow(newest).steps


class _Change:
    """The previous plan, made again from the prompt and the feedback before the newest."""

    def __init__(self, request: PlanRequest) -> None:
        self._request = request
        self._said = 0
        steps = request.previous.steps if request.previous else ()
        made = self._replay()
        self._is_ours = made is not None and _strip_timeouts(made.steps) == _strip_timeouts(steps)
        self._binder = made if made and self._is_ours else Binder(request.tools, request.max_steps)
        self._binder.take_over(steps)

    def _replay(self) -> Binder | None:
        self._is_ours = True
        try:
            self._binder = plan_text(self._request.prompt, self._request)
            for text in self._request.feedback[:-1]:
                self._binder = self.follow(text)
                self._said += 1
        except PlanningError:
            return None
        return self._binder

    def follow(self, text: str) -> Binder:
        """Return the binder with the plan as this text changes it."""
        clauses = list(split_clauses(text, tokenize(text), lambda _: False))
        wishes = [read_wish(text, clause) for clause in clauses]
        if any(wishes):
            for clause, wish in zip(clauses, wishes, strict=True):
                if wish:
                    self._binder.change(clause.text(text), wish)
                elif " ".join(keys_of(clause.tokens)) not in COURTESIES:
                    self._add(clause.text(text), is_added=True)
            return self._binder
        anew = _strip_instead(text)
        if anew is None:
            self._add(text, is_added=_is_added(text))
            return self._binder
        if not self._is_ours or self._said or len(list(read(self._request.prompt))) > 1:
            raise make_refusal(text, "says 'instead', and the plan has several parts that may be meant")
        return plan_text(anew, self._request)

    def _add(self, text: str, *, is_added: bool) -> None:
        before = self._binder.steps
        if any(step.when for step in before):
            raise make_refusal(
                text, "may or may not be covered by the condition of the plan: write the whole task anew"
            )
        for part, action in read(text):
            self._binder.take(part, action)
        new = self._binder.steps[len(before) :]
        if any(step.needs - {each.id for each in self._binder.steps} for step in new):
            raise make_refusal(text, "speaks of something that the plan does not do any more")
        if not new:
            raise make_refusal(text, "asks for no change")
        if not is_added and (not self._is_ours or _tools(before) & (_tools(new) - _READING or _tools(new))):
            raise make_refusal(text, f"may be added to the plan, or replace a part of it: say 'also {text}' to add it")


def _strip_timeouts(steps: PlanSteps) -> PlanSteps:
    """Return the steps as a planner makes them: those of a contract have the time-outs of the registry."""
    return tuple(step.model_copy(update={"timeout_s": None}) if isinstance(step, ToolStep) else step for step in steps)


def _strip_instead(text: str) -> str | None:
    """Return the instruction in `instead add 1 and 2` or `add 1 and 2 instead`; None where the word is missing."""
    tokens = [token for token in tokenize(text) if token.kind != "punct"]
    if len(tokens) > 1 and tokens[0].key == "instead":
        return text[tokens[1].start :]
    if len(tokens) > 1 and tokens[-1].key == "instead":
        return text[: tokens[-1].start].rstrip(" ,")
    return None


def _is_added(text: str) -> bool:
    """Return whether a text says that it is to be done too."""
    keys = [token.key for token in tokenize(text) if token.kind != "punct"]
    return keys[0] in _ADDING or any(tuple(keys[-size:]) in _AT_END for size in (1, 2, 3)) if keys else False


def _tools(steps: PlanSteps) -> set[str]:
    return {step.tool for step in steps if isinstance(step, ToolStep)}
