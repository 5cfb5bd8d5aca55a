"""Changes a plan by wishes about it: `call it hi.txt`, `use b.txt instead of a.txt`, `without writing`."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent_runtime.domain.plan import AgentStep, ToolStep
from agent_runtime.domain.references import escape, references_in
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.planners.rules import meaning as m
from agent_runtime.planners.rules.clauses import Clause
from agent_runtime.planners.rules.formulas import to_number
from agent_runtime.planners.rules.lexer import Token
from agent_runtime.planners.rules.patterns import Table
from agent_runtime.planners.rules.slot_reading import Reading, read_quotation
from agent_runtime.planners.rules.slots import READERS
from agent_runtime.planners.rules.vocabulary import WORDS

PlanSteps = tuple[ToolStep | AgentStep, ...]

SAY_CHANGES = (
    "A plan can be changed by 'also ...', 'instead ...', 'call it b.txt', 'use b.txt instead', 'use b.txt instead of "
    "a.txt' and 'without writing'"
)
_WRITING = frozenset({"write_file", "append_file"})
_WORK = {
    "writing": _WRITING, "write": _WRITING, "saving": _WRITING, "save": _WRITING, "appending": {"append_file"},
    "deleting": {"delete_file", "delete", "delete_all"}, "delete": {"delete_file", "delete", "delete_all"},
    "copying": {"copy_file"}, "moving": {"move_file"}, "renaming": {"move_file"}, "summarizing": {"summarize"},
    "summarising": {"summarize"},
}  # fmt: skip
_OBJECTS = {(), ("anything",), ("it",), ("that",), ("the", "file"), ("a", "file"), ("the", "result"), ("any", "file")}
_TARGETS = {"write_file": "path", "append_file": "path", "copy_file": "destination", "move_file": "destination"}
_SOURCES = {
    "read_file": "path", "read_text_file": "path", "file_info": "path", "get_file_info": "path", "copy_file": "source",
    "move_file": "source", "delete_file": "path",
}  # fmt: skip
_PLACES = frozenset({"path", "source", "destination", "pattern"})


class WishError(Exception):
    """The wish does not fit the plan. The message completes the sentence `The part "..." `."""


@dataclass(frozen=True, slots=True)
class Retarget:
    """Write to another file than before."""

    new: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """Put a text, a path or a number in the place of another one; with None, of the file that is read."""

    new: JsonValue
    old: JsonValue = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave out the steps of these tools."""

    tools: frozenset[str]


Wish = Retarget | Exchange | Drop


def _read_constant(reading: Reading, tokens: Sequence[Token]) -> JsonValue:
    """Read a path, a quotation or a number."""
    path = _read_path(reading, tokens)
    said = read_quotation(tokens)
    number = reading.read("number", tokens)
    if path is not None or said is not None:
        return path if path is not None else escape(said or "")
    return to_number(number.text) if isinstance(number, m.Number) else None


def _read_path(reading: Reading, tokens: Sequence[Token]) -> str | None:
    file = reading.read("newfile", tokens)
    if not isinstance(file, m.NamedFile) or file.folder.path is None:
        return None
    return escape(file.path if file.folder == m.ROOT else f"{file.folder.path}/{file.path}")


def _read_work(_: Reading, tokens: Sequence[Token]) -> frozenset[str] | None:
    rest = tuple(token.key for token in tokens[1:])
    return frozenset(_WORK.get(tokens[0].key, ())) or None if rest in _OBJECTS else None


WISHES = Table(
    [
        ("call|name it|that|the_file|the_result|the_new_file <new=path> instead?", Retarget),
        ("write|save|put|store|copy|move it|that|the_result to|into|in|as <new=path> instead", Retarget),
        ("to|into|in|as <new=path> instead", Retarget),
        ("use|take|read|write|say|do? <new=constant> instead_of|rather_than|not|,_not <old=constant>", Exchange),
        ("replace|change|swap|exchange <old=constant> with|by|to|for <new=constant>", Exchange),
        ("use|take|read|do? <new=path> instead", Exchange),
        ("without|skip|leave_out|don't|do_not <tools=work>", Drop),
    ],
    WORDS,
)
_READERS: Mapping[str, object] = {**READERS, "path": _read_path, "constant": _read_constant, "work": _read_work}


def read_wish(source: str, clause: Clause) -> Wish | None:
    """Return the wish about the plan that this instruction is; None if it is none."""
    found: Wish | None = WISHES.match(clause.tokens, Reading(source, _READERS).read)  # type: ignore[arg-type]
    return found


def apply_wish(steps: PlanSteps, wish: Wish) -> tuple[PlanSteps, tuple[JsonValue, JsonValue]]:
    """Return the changed steps, and the value that was exchanged with the one in its place. Raises: WishError."""
    if isinstance(wish, Drop):
        return _drop(steps, wish.tools), (None, None)
    if isinstance(wish, Retarget):
        old: JsonValue = _find_only(_paths(steps, _TARGETS), "writes")
        if old in _paths_before(steps, old):
            raise WishError(f"is ambiguous: {old} is read before it is written; say 'use {wish.new} instead of {old}'")
    else:
        old = wish.old if wish.old is not None else _find_source(steps)
    is_path = old in {*_paths(steps, _SOURCES), *_paths(steps, _TARGETS)}
    changed = tuple(_exchange(step, old, wish.new, _PLACES if is_path else None) for step in steps)
    if changed == steps:
        raise WishError(f"speaks of {old}, which is not in the plan as a value of its own")
    return _drop_unneeded(steps, changed), (old, wish.new)


def _find_only(paths: Iterable[str], does: str) -> str:
    found = sorted(set(paths))
    if len(found) == 1:
        return found[0]
    if not found:
        raise WishError(f"names another file, and the plan {does} none")
    raise WishError(
        f"is ambiguous: the plan {does} {', '.join(found)}; say which, as in 'use b.txt instead of {found[0]}'"
    )


def _find_source(steps: PlanSteps) -> str:
    everything = set(_paths(steps, _SOURCES)) | set(_paths(steps, _TARGETS))
    return everything.pop() if len(everything) == 1 else _find_only(_paths(steps, _SOURCES), "reads")


def _paths(steps: PlanSteps, of: Mapping[str, str]) -> Iterator[str]:
    for step in steps:
        path = step.arguments.get(of[step.tool]) if isinstance(step, ToolStep) and step.tool in of else None
        if isinstance(path, str):
            yield path


def _paths_before(steps: PlanSteps, target: JsonValue) -> set[str]:
    """Return the paths that are read before anything is written to the target."""
    ends = [at for at, step in enumerate(steps) if target in set(_paths((step,), _TARGETS))]
    return set(_paths(steps[: ends[0]], _SOURCES))


def _exchange(
    step: ToolStep | AgentStep, old: JsonValue, new: JsonValue, places: Collection[str] | None
) -> ToolStep | AgentStep:
    """Return the step with the new value wherever the old one is an argument, or stands in the condition.

    `places`: the arguments that may be changed; None for any.
    """
    if isinstance(step, AgentStep):
        if str(old) in step.instruction:
            raise WishError(f"cannot change the instruction of step {step.id}, which a model follows: edit the plan")
        return step
    arguments: JsonObject = {
        name: new if (places is None or name in places) and _is_same(value, old) else value
        for name, value in step.arguments.items()
    }
    when = step.when and re.sub(_whole(_literal(old)), lambda _: _literal(new), step.when)
    if arguments == step.arguments and when == step.when:
        return step
    title = re.sub(_whole(str(old)), lambda _: str(new), step.title)
    return step.model_copy(update={"arguments": arguments, "when": when, "title": title})


def _is_same(value: JsonValue, other: JsonValue) -> bool:
    return type(value) is type(other) and value == other


def _whole(text: str) -> str:
    return rf"(?<![\w.$]){re.escape(text)}(?![\w{{])(?!\.\w)"


def _literal(value: JsonValue) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _drop(steps: PlanSteps, tools: frozenset[str]) -> PlanSteps:
    gone = {step.id: step for step in steps if isinstance(step, ToolStep) and step.tool in tools}
    if not gone:
        raise WishError("asks to leave out what the plan does not do")
    kept = tuple(step for step in steps if step.id not in gone)
    if not kept:
        raise WishError("would leave nothing of the plan: reject it instead")
    if lost := sorted(set(_paths(kept, _SOURCES)) & set(_paths(tuple(gone.values()), _TARGETS))):
        raise WishError(f"would leave out what makes {lost[0]}, which the plan reads")
    for step in kept:
        if used := {reference.step for reference in references_in(step.templates)} & gone.keys():
            raise WishError(f"would leave out step {min(used)}, whose result step {step.id} needs")
    return tuple(_without_needs(step, gone) for step in kept)


def _without_needs(step: ToolStep | AgentStep, gone: Mapping[str, ToolStep | AgentStep]) -> ToolStep | AgentStep:
    """Return the step after what the steps before it, which are gone, came after."""
    after = list(step.depends_on)
    while missing := next((name for name in after if name in gone), None):
        place = after.index(missing)
        after[place : place + 1] = [name for name in sorted(gone[missing].needs) if name not in after]
    implied = {reference.step for reference in references_in(step.templates)}
    return step.model_copy(update={"depends_on": tuple(name for name in after if name not in implied)})


def _drop_unneeded(before: PlanSteps, after: PlanSteps) -> PlanSteps:
    """Leave out listings that were made to choose a file, and are not needed now that it is named."""
    was_used = {reference.step for step in before for reference in references_in(step.templates)}
    is_used = {reference.step for step in after for reference in references_in(step.templates)}
    lists = {step.id for step in after if isinstance(step, ToolStep) and step.tool == "list_directory"}
    gone = {step.id: step for step in after if step.id in lists & was_used - is_used}
    return tuple(_without_needs(step, gone) for step in after if step.id not in gone)
