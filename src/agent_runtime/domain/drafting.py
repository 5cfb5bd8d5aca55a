"""Validate a plan against the available tools, and draw up its contract."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any

from jsonschema import ValidationError

from agent_runtime.domain import references
from agent_runtime.domain.asking import reasons_to_ask
from agent_runtime.domain.conditions import MOST_REFERENCES, condition_references, read_condition
from agent_runtime.domain.contract import MOST_STEPS, Contract, Limits, PinnedModel, PinnedPolicy
from agent_runtime.domain.deny import applies
from agent_runtime.domain.errors import Fault, InvalidPlanError
from agent_runtime.domain.missing_tools import explain_missing_tool
from agent_runtime.domain.plan import AgentStep, Plan, Step, ToolStep, find_cycle, tool_keys
from agent_runtime.domain.rerun import Rerun, pin_rerun
from agent_runtime.domain.schemas import CHECK_SECONDS, OpenText, UnusableSchemaError, as_open, errors_of
from agent_runtime.domain.tools import Tool
from agent_runtime.domain.values import JsonObject, canonical, is_deeper_than, shorten
from agent_runtime.text.escaping import is_blank

MOST_DEPTH = 64
"""The maximum nesting depth of the arguments of a step (G11)."""

NO_MODEL = (
    "An agent step needs a language model, and none is configured: set openai.api_key or openai.base_url "
    "(OPENAI_API_KEY, OPENAI_BASE_URL)"
)

UNKNOWN_MODEL = "An agent step needs a language model, and it is not known which one the endpoint has ({})"

PLAN_SECONDS = 0.25
"""The CPU time for checking the arguments of all steps of a plan, in seconds."""

MOST_FAULTS = 100
"""The maximum number of faults named for the arguments of one step."""

Catalogue = Mapping[str, Tool]
"""The available tools, by `server/tool`."""


def draw_up(
    plan: Plan,
    limits: Limits,
    catalogue: Catalogue,
    *,
    model: PinnedModel | None,
    no_model: str | None = None,
    covers_data: bool = False,
    unusable: Mapping[str, str] = MappingProxyType({}),
    rerun: Rerun | None = None,
) -> Contract:
    """Validate a plan against the catalogue and return its contract. Without a `model` it may have no agent steps.

    `no_model`, `unusable`: see `find_faults`.
    Missing titles, timeouts and retries are filled in, so that the approver sees the values that will apply.
    Raises: InvalidPlanError naming every fault.
    """
    with_model = model is not None
    faults = list(find_faults(plan, limits, catalogue, agent_steps=with_model, no_model=no_model, unusable=unusable))
    if faults:
        raise InvalidPlanError(faults)
    reused = pin_rerun(rerun, plan)
    used = {key: catalogue[key] for step in plan.steps for key in tool_keys(step)}
    return Contract(
        form=2,
        goal=plan.goal,
        steps=tuple(_fill_in(step, catalogue, limits.retries) for step in plan.steps),
        limits=limits,
        policy={key: pin_policy(tool) for key, tool in used.items()},
        pins={key: tool.pin for key, tool in used.items()},
        servers={tool.server: tool.identity for tool in used.values()},
        model=model if any(isinstance(step, AgentStep) for step in plan.steps) else None,
        covers_data=covers_data,
        rerun=reused,
        asks=reasons_to_ask(plan, used, reused),
    )


def pin_policy(tool: Tool) -> PinnedPolicy:
    """Return the policy of a tool as contracts store it."""
    return PinnedPolicy(
        effect=tool.effect,
        idempotent=tool.idempotent,
        open_world=tool.open_world,
        approval=tool.approval,
        vouched=tool.vouched,
        timeout_s=tool.timeout_s,
        max_timeout_s=tool.max_timeout_s,
    )


def _fill_in(step: ToolStep | AgentStep, catalogue: Catalogue, retries: int) -> ToolStep | AgentStep:
    if isinstance(step, AgentStep):
        tools = tuple(
            allowed.model_copy(update={"timeout_s": allowed.timeout_s or catalogue[allowed.key].timeout_s})
            for allowed in step.tools
        )
        return step.model_copy(update={"title": step.title or step.instruction.strip()[:80], "tools": tools})
    tool = catalogue[step.key]
    return step.model_copy(
        update={
            "title": step.title or f"{step.server}.{step.tool}",
            "timeout_s": step.timeout_s or tool.timeout_s,
            "retries": step.retries or (retries if tool.idempotent else 0),
        }
    )


def find_faults(
    plan: Plan,
    limits: Limits,
    catalogue: Catalogue,
    *,
    agent_steps: bool,
    no_model: str | None = None,
    unusable: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Fault]:
    """Yield every fault of a plan with its place. `agent_steps`: agent steps are allowed, as the model is known.

    `no_model`: why a configured model is not known; None if none is configured.
    `unusable`: why listed tools and servers are not in the catalogue; see `explain_missing_tool`.
    """
    if len(plan.steps) > limits.max_steps:
        yield Fault("steps", f"{len(plan.steps)} steps are more than max_steps, which is {limits.max_steps}.")
    deep = [i for i, step in enumerate(plan.steps) if is_deeper_than(step.templates, MOST_DEPTH)]
    yield from (Fault(f"steps[{i}].arguments", f"They are nested more than {MOST_DEPTH} deep.") for i in deep)
    if deep or len(plan.steps) > MOST_STEPS:
        return  # the remaining checks take time for each step, and recurse into its arguments
    try:
        canonical(plan.model_dump(mode="json"))
    except ValueError as error:
        yield Fault("", f"The plan holds a value that JSON cannot carry exactly: {error}.")
    yield from _blank_texts(plan)
    first_at: dict[str, int] = {}
    for index, step in enumerate(plan.steps):
        if step.id in first_at:
            yield Fault(f"steps[{index}].id", f"{step.id!r} is already the id of steps[{first_at[step.id]}].")
        first_at.setdefault(step.id, index)
    seconds = min(CHECK_SECONDS, PLAN_SECONDS / len(plan.steps))
    for index, step in enumerate(plan.steps):
        place = f"steps[{index}]"
        yield from _link_faults(step, place, frozenset(first_at))
        if isinstance(step, ToolStep):
            yield from _tool_step_faults(step, place, catalogue, seconds, unusable)
        else:
            if not agent_steps:
                reason = NO_MODEL if no_model is None else UNKNOWN_MODEL.format(no_model.rstrip("."))
                yield Fault(f"{place}.kind", f"{reason}, or use tool steps only.")
            yield from _agent_step_faults(step, place, catalogue, unusable)
    rest: Sequence[Step] = plan.steps
    while cycle := find_cycle(rest):
        yield Fault("steps", f"The steps {' -> '.join(cycle)} depend on each other in a circle.")
        rest = [step for step in rest if step.id not in cycle]


def _blank_texts(plan: Plan) -> Iterator[Fault]:
    """Yield a fault for each text that is not empty but looks empty to an approver, and for each blank instruction."""
    texts = [("goal", plan.goal)]
    for index, step in enumerate(plan.steps):
        texts += [(f"steps[{index}].title", step.title), (f"steps[{index}].reasoning", step.reasoning)]
    for place, text in texts:
        if text and is_blank(text):
            yield Fault(place, f"It has no visible characters: write a {place.rpartition('.')[2]}, or leave it out.")
    for index, step in enumerate(plan.steps):
        if isinstance(step, AgentStep) and is_blank(step.instruction):
            yield Fault(f"steps[{index}].instruction", "The instruction is empty: say what is to be done.")


def _link_faults(step: ToolStep | AgentStep, place: str, known: frozenset[str]) -> Iterator[Fault]:
    holder = "arguments" if isinstance(step, ToolStep) else "instruction"
    for path, text in references.strings(step.templates):
        try:
            references.parse_template(text)
        except ValueError as error:
            yield Fault(_place(f"{place}.{holder}", path), str(error))
    if step.when is not None:
        try:
            condition = read_condition(step.when)
        except ValueError as error:
            yield Fault(f"{place}.when", str(error))
        else:
            if (count := len(condition.references)) > MOST_REFERENCES:
                yield Fault(f"{place}.when", f"{count} references are more than {MOST_REFERENCES}.")
    conditional = {reference.step for reference in condition_references(step.when)}
    for name in sorted(step.needs - known):
        field = "depends_on" if name in step.depends_on else "when" if name in conditional else holder
        yield Fault(f"{place}.{field}", f"There is no step {name!r} in the plan.")


def _tool_step_faults(
    step: ToolStep, place: str, catalogue: Catalogue, seconds: float, unusable: Mapping[str, str]
) -> Iterator[Fault]:
    tool = catalogue.get(step.key)
    if tool is None:
        yield explain_missing_tool(step.server, step.tool, place, catalogue, unusable)
        return
    yield from _timeout_faults(step.timeout_s, tool, place)
    if step.retries and not tool.idempotent:
        yield Fault(
            f"{place}.retries",
            f"{tool.key!r} may not be retried: the operator has not called it idempotent in the tool registry.",
        )
    known = as_open(step.arguments)
    for denial in tool.denials:
        if applies(denial, known):
            yield _denial_fault(denial.told, f"{place}.{'arguments' if denial.arguments else 'tool'}")
    yield from argument_faults(step.arguments, tool.definition.arguments_schema, f"{place}.arguments", seconds=seconds)


def _timeout_faults(timeout_s: float | None, tool: Tool, place: str) -> Iterator[Fault]:
    if timeout_s is not None and timeout_s > tool.timeout_s:
        message = f"{timeout_s:g} s is over the limit of {tool.timeout_s:g} s for {tool.key!r}."
        yield Fault(f"{place}.timeout_s", message)


def _agent_step_faults(
    step: AgentStep, place: str, catalogue: Catalogue, unusable: Mapping[str, str]
) -> Iterator[Fault]:
    for index, allowed in enumerate(step.tools):
        here = f"{place}.tools[{index}]"
        tool = catalogue.get(allowed.key)
        if tool is None:
            yield explain_missing_tool(allowed.server, allowed.tool, here, catalogue, unusable)
        else:
            yield from _timeout_faults(allowed.timeout_s, tool, here)
            if tool.denied:
                yield _denial_fault(tool.denied, f"{here}.tool")
        if allowed.key in [other.key for other in step.tools[:index]]:
            yield Fault(here, f"{allowed.key!r} is listed twice; say in one place how often it may be called.")


def _denial_fault(told: str, place: str) -> Fault:
    return Fault(place, f"{told[0].upper()}{told[1:]}.")


def argument_faults(
    arguments: JsonObject,
    schema: JsonObject,
    place: str,
    *,
    resolved: bool = False,
    seconds: float = CHECK_SECONDS,
) -> Iterator[Fault]:
    """Yield the faults that the schema finds in arguments that may contain references.

    Errors at, above or below a reference are ignored, except unknown properties. An error about a missing
    property is at that property. A string with a reference inside must still be allowed to be a string. Arguments
    without references are validated in full; so are `resolved` ones, whose text is never read as a reference.

    At most `MOST_FAULTS` faults are named. What is not checked within `seconds` of CPU time is left to the server.
    """
    return islice(_argument_faults(arguments, schema, place, resolved=resolved, seconds=seconds), MOST_FAULTS)


def _argument_faults(
    arguments: JsonObject, schema: JsonObject, place: str, *, resolved: bool, seconds: float
) -> Iterator[Fault]:
    value = arguments if resolved else as_open(arguments)
    try:
        errors = errors_of(schema, value, seconds)
    except UnusableSchemaError as wrong:
        yield Fault(place, f"The tool's own input schema cannot be used: {wrong}.")
        return
    texts = () if resolved else references.strings(value)
    open_paths = {path: text.whole for path, text in texts if isinstance(text, OpenText)}
    above = {path[:depth] for path in open_paths for depth in range(len(path))}
    for error in errors:
        path = tuple(error.absolute_path)
        related = path in above or any(path[:depth] in open_paths for depth in range(len(path) + 1))
        if not related or error.validator == "additionalProperties":  # no value of a reference makes it known
            yield Fault(_place(place, path), shorten(error.message))
        elif open_paths.get(path) is False and _forbids_strings(error):
            yield Fault(_place(place, path), shorten(f"Text is not allowed here: {error.message}"))


def _forbids_strings(error: ValidationError) -> bool:
    """Return whether every string would have caused this error."""
    if error.validator in {"enum", "const"}:
        named: Any = error.validator_value
        return not any(isinstance(value, str) for value in (named if error.validator == "enum" else [named]))
    if error.validator in {"anyOf", "oneOf"}:
        branches: dict[Any, bool] = {}
        for inner in error.context or ():
            branch = inner.schema_path[0]
            branches[branch] = branches.get(branch, False) or _forbids_strings(inner)
        return bool(branches) and all(branches.values())
    return error.validator == "type"


def _place(place: str, path: Sequence[str | int]) -> str:
    return place + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
