"""Identities of servers and models, on which an approval depends too, and their later differences (G6)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agent_runtime.domain.contract import Contract, PinnedModel
from agent_runtime.domain.errors import DefinitionChangedError
from agent_runtime.domain.tools import ToolDefinition, tool_key
from agent_runtime.domain.values import JsonObject, JsonValue, digest, shorten


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The identity of an MCP server: its program or URL, folder and environment.

    `facts` are as the registry states them, without secrets. `of_form_1` is the part that pins of form 1 cover.
    """

    facts: JsonObject
    of_form_1: JsonObject
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest(self.facts))


@dataclass(frozen=True, slots=True)
class Identities:
    """The identities of all servers, by id, and of the model of the running service.

    `no_model`: why the identity of a configured model is not known.
    """

    servers: Mapping[str, ServerIdentity]
    model: PinnedModel | None = None
    no_model: str | None = None

    def differences(self, contract: Contract, approved: Mapping[str, JsonObject]) -> list[str]:
        """Return a sentence for each difference from the contract; empty if there is none.

        `approved`: the facts about the servers when the plan was made. A server or model that is no longer configured
        is not a difference: it cannot be called at all. Contracts of form 1 name neither.
        """
        found: list[str] = []
        for server_id, pinned in contract.servers.items():
            now = self.servers.get(server_id)
            if now is not None and now.digest != pinned:
                found += describe_differences(server_id, approved.get(server_id, {}), now.facts)
        if contract.model and self.model and contract.model != self.model:
            before, after = (model.model_dump(mode="json") for model in (contract.model, self.model))
            found += describe_differences("the model", before, after)
        return found


def describe_differences(name: str, before: JsonObject, after: JsonObject) -> Iterator[str]:
    """Yield a sentence for each fact that differs, as in `ops: cwd was "/srv/a" and is "/srv/b".`."""
    old, new = flatten(before), flatten(after)
    for place in dict.fromkeys((*old, *new)):
        if place not in new:
            yield f"{name}: {place} was {_show(old[place])} and is no longer set."
        elif place not in old:
            yield f"{name}: {place} was not set and is {_show(new[place])}."
        elif old[place] != new[place]:
            yield f"{name}: {place} was {_show(old[place])} and is {_show(new[place])}."


def flatten(facts: JsonObject, prefix: str = "") -> dict[str, JsonValue]:
    """Flatten nested facts to dotted names, such as `env.TARGET`."""
    found: dict[str, JsonValue] = {}
    for name, value in facts.items():
        place = f"{prefix}{name}"
        found |= flatten(value, f"{place}.") if isinstance(value, dict) else {place: value}
    return found


def _show(value: JsonValue) -> str:
    return shorten(json.dumps(value, ensure_ascii=False))


def compare_pins(
    contract: Contract,
    server: str,
    identity_of_form_1: JsonObject,
    approved: Mapping[str, ToolDefinition],
    current: Mapping[str, ToolDefinition],
) -> None:
    """Compare the tool definitions of a session with the contract's pins (G6). In form 1 pins cover the server too.

    `approved`: the plan's definitions by `server/tool`. `current`: by tool name, as listed by the session that will
    receive the calls.
    Raises: DefinitionChangedError naming every difference.
    """
    differences: list[str] = []
    for key, pin in contract.pins.items():
        name = key.partition("/")[2]
        if key != tool_key(server, name):
            continue
        definition = current.get(name)
        if definition is None:
            differences.append(f"{key}: the server no longer has this tool.")
        elif _pin(contract, definition, identity_of_form_1) != pin:
            differences.extend(f"{key}: {line}" for line in _differences(contract, approved.get(key), definition))
    if differences:
        raise DefinitionChangedError(
            f"A tool is not what the plan was made with, so it was not called. {' '.join(differences)}"
        )


def _pin(contract: Contract, definition: ToolDefinition, identity: JsonObject) -> str | None:
    """Return the pin of a definition in the contract's form; None if JSON cannot carry the definition."""
    try:
        return definition.pin if contract.form != 1 else definition.pin_of_form_1(identity)
    except ValueError:  # the plan's own definition had a pin, so this one differs
        return None


def _differences(contract: Contract, before: ToolDefinition | None, after: ToolDefinition) -> Iterator[str]:
    pinned = ToolDefinition.model_dump if contract.form == 1 else ToolDefinition.as_pinned
    changed = list(_changes(pinned(before), pinned(after))) if before else []
    yield from changed
    if not changed:
        yield "the server is not the one that the plan was made with (its registry entry has changed)."


def compare_definitions(before: ToolDefinition, after: ToolDefinition) -> Iterator[str]:
    """Yield a sentence for each difference between two definitions. The order of sets does not count; see `as_pinned`.

    Raises: ValueError where JSON cannot carry a definition exactly.
    """
    if before.pin != after.pin:
        yield from _changes(before.as_pinned(), after.as_pinned())


def _changes(old: JsonObject, new: JsonObject) -> Iterator[str]:
    for name in new:
        if old[name] != new[name]:
            yield f"{name} was {shorten(repr(old[name]))} and is {shorten(repr(new[name]))}."
