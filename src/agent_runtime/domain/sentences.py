"""One plain sentence for each step of a plan, which a reader without programming can judge.

A sentence is made from the call itself, never from its title, which a model wrote. Built-in tools have their own words;
every other server is asked to run a tool with named values.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from agent_runtime.domain.builtin_sentences import SENTENCES, BuiltinCall
from agent_runtime.domain.contract import Contract
from agent_runtime.domain.effects import describe_effect
from agent_runtime.domain.plan import AgentStep, AllowedTool, ToolStep
from agent_runtime.domain.present_files import FILE_SERVER, NamedFile, PresentFiles, builtin_names, find_files
from agent_runtime.domain.tools import Effect, ToolDefinition
from agent_runtime.domain.values import JsonObject
from agent_runtime.domain.wording import Wording, count_things, join_words, name_thing

_MOST_ARGUMENTS = 4
_MOST_TOOLS = 6
_CHANGES = {
    ("write_file", "path"): "writes",
    ("append_file", "path"): "writes",
    ("copy_file", "destination"): "writes",
    ("move_file", "destination"): "writes",
    ("move_file", "source"): "moves away",
    ("delete_file", "path"): "deletes",
}
"""The verbs for what file tools do with the file that an argument names."""


@dataclass(frozen=True, slots=True)
class StepInWords:
    """A step in words. `effect`: that of its tool as far as the present files allow to say it, and `effect_text` in
    words, with the claim of a server that is not trusted.
    """

    sentence: str
    effect: Effect
    effect_text: str


def number_steps(contract: Contract) -> dict[str, int]:
    """Return the position of each step, from 1, by its id."""
    return {step.id: number for number, step in enumerate(contract.steps, 1)}


def describe_steps(
    contract: Contract,
    identities: Mapping[str, JsonObject],
    definitions: Mapping[str, ToolDefinition],
    files: PresentFiles | None = None,
    numbers: Mapping[str, int] | None = None,
) -> list[StepInWords]:
    """Return each step of a plan in words, in order.

    `identities`: the facts about its servers, by id, which tell built-in servers from others of the same name.
    `definitions`: those of its tools, by `server/tool`. `files`: what its paths name now, as far as it is known.
    `numbers`: by which the steps are called, by id; their positions without it.
    """
    words = Wording(number_steps(contract) if numbers is None else numbers)
    builtin = builtin_names(identities)
    changed: dict[NamedFile, str] = {}
    found: list[StepInWords] = []
    for step in contract.steps:
        replaces, file = False, None
        if isinstance(step, AgentStep):
            text = _describe_agent(step, words)
        else:
            named = find_files(step, builtin)
            call = _read_call(step, words, named, files or {}, changed)
            text = _describe_call(step, builtin.get(step.server), call)
            replaces = builtin.get(step.server) == FILE_SERVER and step.tool == "write_file"
            file = call.files.get("path")
            for name, place in named.items():
                if verb := _CHANGES.get((step.tool, name)):
                    changed[_place_of(place)] = f"{words.name_step(step.id)} {verb}"
        if step.when is not None:
            text += f", but only if {words.describe_condition(step.when)}"
        if contract.rerun and step.id in contract.rerun.results:
            text = f"Takes the result of the earlier task and calls nothing. There it was: {text}"
        effect, effect_text = describe_effect(contract, step, definitions, replaces=replaces, file=file)
        found.append(StepInWords(f"{text}.", effect, effect_text))
    return found


def _read_call(
    step: ToolStep,
    words: Wording,
    named: Mapping[str, NamedFile],
    files: PresentFiles,
    changed: Mapping[NamedFile, str],
) -> BuiltinCall:
    changes = {name: changed[_place_of(file)] for name, file in named.items() if _place_of(file) in changed}
    states = {name: files[file] for name, file in named.items() if name not in changes and file in files}
    return BuiltinCall(words, step.arguments, states, changes)


def _place_of(named: NamedFile) -> NamedFile:
    return named[0], posixpath.normpath(named[1])


def _describe_call(step: ToolStep, builtin: str | None, call: BuiltinCall) -> str:
    describe = SENTENCES.get((builtin or "", step.tool))
    if describe is not None:
        return describe(call)
    asked = f"Asks the server {step.server} to run {name_thing(step.tool)}"
    given = [f"{name_thing(name)} {call.say(name)}" for name in list(step.arguments)[:_MOST_ARGUMENTS]]
    more = len(step.arguments) - _MOST_ARGUMENTS
    if more > 0:
        given.append(f"{count_things(more, 'more value')}")
    return f"{asked} with {join_words(given)}" if given else asked


def _describe_agent(step: AgentStep, words: Wording) -> str:
    tools = [_describe_allowed(allowed) for allowed in step.tools[:_MOST_TOOLS]]
    if len(step.tools) > _MOST_TOOLS:
        tools.append(count_things(len(step.tools) - _MOST_TOOLS, "more tool"))
    means = f"It may use {join_words(tools)}" if tools else "It may use no tools"
    return f"Gives the model this work: {words.describe_value(step.instruction)}. {means}"


def _describe_allowed(allowed: AllowedTool) -> str:
    times = "once" if allowed.max_calls == 1 else f"at most {allowed.max_calls} times"
    return f"{name_thing(allowed.tool)} of {allowed.server} ({times})"
