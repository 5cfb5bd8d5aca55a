"""What the operator says about MCP servers, what the servers say about their tools, and what follows from both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, ValidationInfo

from agent_runtime.domain.schema_reading import read_schema
from agent_runtime.domain.schema_sets import with_sorted_sets
from agent_runtime.domain.values import Identifier, JsonObject, JsonValue, Value, digest


class Effect(StrEnum):
    """What a tool may do to the world. Unknown is treated as the worst."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    UNKNOWN = "unknown"


def _not_shorter(seconds: float | None, info: ValidationInfo) -> float | None:
    timeout_s = info.data.get("timeout_s")
    if seconds is not None and timeout_s is not None and seconds < timeout_s:
        raise ValueError(f"must be at least timeout_s, which is {timeout_s:g}")
    return seconds


class ToolPolicy(Value):
    """The operator's word on one tool, or on all that a glob matches. `None`: the operator says nothing.

    `max_timeout_s`: what a call may take in all while it reports progress; `timeout_s` counts from the last report.
    """

    effect: Effect | None = None
    idempotent: bool | None = None
    open_world: bool | None = None
    approval: Literal["plan", "call"] | None = None
    timeout_s: PositiveFloat | None = None
    max_timeout_s: Annotated[PositiveFloat | None, AfterValidator(_not_shorter)] = None
    enabled: bool | None = None


def _check_pattern(pattern: str) -> str:
    if "${" in pattern:
        raise ValueError("is compared as it stands, and nothing is replaced in it: write the text itself, without ${")
    return pattern


def _check_path(path: str) -> str:
    if not all(path.split(".")):
        raise ValueError("must be the name of an argument, or names with dots between them, as in 'options.path'")
    return path


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_check_pattern)]
"""A glob (`*`, `?`, `[abc]`), upper and lower case told apart."""


class Denial(Value):
    """The operator's word that calls like these are never made, whoever approved them; see `deny.py`.

    Every path of `arguments` must lead to a value that its glob matches; without any, every call of the tool is
    meant. `reason` is shown to whoever wanted the call.
    """

    tool: Pattern = "*"
    arguments: Mapping[Annotated[str, AfterValidator(_check_path)], Pattern] = {}
    reason: str | None = None

    @property
    def told(self) -> str:
        """What a person is told: the reason, and the rule as the operator wrote it."""
        where = " and ".join(f"{path} like {pattern!r}" for path, pattern in self.arguments.items())
        rule = f"deny {self.tool!r}{' with ' if where else ''}{where}"
        return f"denied by the operator: {self.reason} ({rule})" if self.reason else f"denied by the operator ({rule})"


class ServerDenial(Denial):
    """A denial that says itself which servers it is about, by a glob over their ids."""

    server: Pattern = "*"


def _normalize_mode(mode: object) -> object:
    """Take the word `off` for itself; YAML reads it as False."""
    return "off" if mode is False else mode


class Sandbox(Value):
    """How a stdio server is confined. `auto`: in namespaces of its own where bubblewrap works.

    `network` False: it sees none, and no sockets of others. `read`: it sees these paths and no others. `write`: it
    writes these paths and no others.
    """

    mode: Annotated[Literal["auto", "off", "required"], BeforeValidator(_normalize_mode)] = "auto"
    network: bool = True
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @property
    def is_limited(self) -> bool:
        """Whether it is denied anything that a process of this user could otherwise reach."""
        return not self.network or bool(self.read or self.write)


class StdioConfig(Value):
    """A command that speaks MCP on its standard streams. `env` is all it gets beside a short safe list."""

    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    cwd: str | None = None


class HttpConfig(Value):
    """The URL of a streamable HTTP server, and headers for it."""

    base_url: str = Field(min_length=1, pattern=r"^https?://")
    headers: Mapping[str, str] = {}


class BuiltinConfig(Value):
    """A server that ships with the service and runs in its process, by its name in `builtin/servers.py`."""

    server: str
    root: str | None = None


class _Entry(Value):
    id: Identifier
    name: str | None = None
    enabled: bool = True
    client_session_timeout_seconds: PositiveFloat = 60
    tools: Mapping[str, ToolPolicy] = {}
    deny: tuple[Denial, ...] = ()

    def policy_for(self, tool: str) -> ToolPolicy:
        """The operator's word on a tool: its exact name first, then the globs in the order of the file."""
        said: dict[str, Any] = {}
        exact = [self.tools[tool]] if tool in self.tools else []
        globs = [policy for pattern, policy in self.tools.items() if pattern != tool and fnmatchcase(tool, pattern)]
        for policy in [*exact, *globs]:
            for name, value in policy:
                if value is not None:
                    said.setdefault(name, value)
        return ToolPolicy(**said)


class StdioServer(_Entry):
    """An MCP server that the runtime starts as a process.

    `stop_s`: it has as many seconds to leave once it is told to, before it is killed.
    """

    type: Literal["local_stdio"]
    config: StdioConfig
    scope: Literal["task", "shared"] = "task"
    trust: Literal["none", "annotations"] = "none"
    sandbox: Sandbox = Sandbox()
    stop_s: float = Field(default=5, ge=5, le=9)

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The part of the file's own text that pins of form 1 cover."""
        return {"type": self.type, "argv": [self.config.command, *self.config.args]}


class HttpServer(_Entry):
    """An MCP server that somebody else runs, reached over streamable HTTP."""

    type: Literal["remote_http"]
    config: HttpConfig
    scope: Literal["task", "shared"] = "shared"
    trust: Literal["none", "annotations"] = "none"

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The part of the file's own text that pins of form 1 cover."""
        return {"type": self.type, "url": self.config.base_url}


class BuiltinServer(_Entry):
    """An MCP server that ships with the service; its annotations are ours, and so trusted."""

    type: Literal["builtin"]
    config: BuiltinConfig
    scope: Literal["shared"] = "shared"
    trust: Literal["none", "annotations"] = "annotations"

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The part of the file's own text that pins of form 1 cover."""
        return {"type": self.type, "server": self.config.server, "root": self.config.root}


ToolServer = Annotated[StdioServer | HttpServer | BuiltinServer, Field(discriminator="type")]
"""One entry of tool_registry.yaml. Every adapter dispatches on its `type`."""


HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
"""The annotations of MCP that say how a tool behaves: true, false, or anything else, which says nothing."""


class ToolDefinition(BaseModel):
    """A tool as its server defines it, in the words of the wire. Claims, until the operator trusts them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    title: str | None = None
    description: str | None = None
    inputSchema: JsonObject = Field(default_factory=dict)  # noqa: N815 - the wire's own names are what is pinned
    outputSchema: JsonObject | None = None  # noqa: N815
    annotations: JsonObject | None = None

    @cached_property
    def arguments_schema(self) -> JsonObject:
        """The input schema as it is meant; see `schema_reading.py`."""
        try:
            return read_schema(self.inputSchema)
        except RecursionError:
            return self.inputSchema  # which is refused where it is judged

    @cached_property
    def pin(self) -> str:
        """The digest of this definition (G6). The lists of a schema that are sets count as sets.

        Raises: ValueError where JSON cannot carry the definition exactly.
        """
        return digest(self.as_pinned())

    def as_pinned(self) -> JsonObject:
        """Return what the pin is the digest of."""
        data = self.model_dump()
        return {**data, **{name: with_sorted_sets(data[name]) for name in ("inputSchema", "outputSchema")}}

    def pin_of_form_1(self, identity: JsonObject) -> str:
        """Return the pin that contracts of form 1 hold: definition and identity of the server in one digest.

        Raises: ValueError where JSON cannot carry the definition exactly.
        """
        return digest({"identity": identity, "definition": self.model_dump()})


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server lists: the tools that can be used, and of each other one, by name, why it cannot."""

    definitions: Sequence[ToolDefinition] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ToolDefinition]:
        return iter(self.definitions)

    def __len__(self) -> int:
        return len(self.definitions)


class JudgedDefinition(Value):
    """A definition, and why its schema cannot be used; `fault` is `None` where it can."""

    definition: ToolDefinition
    fault: str | None = None


class Tool(Value):
    """A tool that a plan may use: its definition, its pin, and what is held to be true of it.

    `identity` is the digest of what its server is. `vouched`: the operator has said that the approval of the plan is
    enough, wherever its arguments come from.
    `max_timeout_s`: what a call may take in all while it reports progress, None: `TIMES_THE_TIMEOUT` its time-out.
    `denials`: the operator's word on calls of it that are never made.
    """

    server: str
    definition: ToolDefinition
    pin: str
    identity: str = ""
    effect: Effect
    idempotent: bool
    open_world: bool
    approval: Literal["plan", "call"]
    vouched: bool = False
    timeout_s: float
    max_timeout_s: float | None = None
    builtin: bool = False
    denials: tuple[Denial, ...] = ()

    @property
    def denied(self) -> str | None:
        """Why no call of it is ever made; None where that depends on the arguments, or nothing is said."""
        return next((denial.told for denial in self.denials if not denial.arguments), None)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def key(self) -> str:
        """`server/tool`: how plans, pins and policies name it."""
        return tool_key(self.server, self.definition.name)


def tool_key(server: str, tool: str) -> str:
    """`server/tool`. A server's id holds no slash, so the key names one tool only."""
    return f"{server}/{tool}"


def describe_tool(
    server: StdioServer | HttpServer | BuiltinServer, definition: ToolDefinition, identity: str = ""
) -> Tool:
    """Judge a tool from the operator's word and the server's claims, which only ever raise caution unless trusted.

    `identity` is the digest of what the server is. Raises: ValueError where the definition cannot be pinned.
    """
    said = server.policy_for(definition.name)
    trusted = server.trust == "annotations"
    hints = definition.annotations or {}
    return Tool(
        server=server.id,
        definition=definition,
        pin=definition.pin,
        identity=identity,
        effect=said.effect or _claimed_effect(hints, trusted=trusted),
        idempotent=said.idempotent if said.idempotent is not None else trusted and _claims_idempotence(hints),
        open_world=said.open_world
        if said.open_world is not None
        else not trusted or hints.get("openWorldHint") is not False,
        approval=said.approval or "plan",
        vouched=said.approval == "plan",
        timeout_s=said.timeout_s or server.client_session_timeout_seconds,
        max_timeout_s=said.max_timeout_s,
        builtin=server.type == "builtin",
        denials=tuple(denial for denial in server.deny if fnmatchcase(definition.name, denial.tool)),
    )


def _claimed_effect(hints: Mapping[str, JsonValue], *, trusted: bool) -> Effect:
    if hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True:
        return Effect.DESTRUCTIVE
    if not trusted:
        return Effect.UNKNOWN
    if hints.get("readOnlyHint") is True:
        return Effect.READ
    return Effect.WRITE if hints.get("destructiveHint") is False else Effect.DESTRUCTIVE


def _claims_idempotence(hints: Mapping[str, JsonValue]) -> bool:
    return hints.get("readOnlyHint") is True or hints.get("idempotentHint") is True


def _is_false(value: object) -> bool:
    return value is False


class StoredResult(Value):
    """What a tool call gave, as the journal keeps it.

    `text` is its text blocks joined by a newline, each other block named in its place; `output` its structured content,
    or null. A result over the limit keeps a first part of its text and no output, with the whole size in bytes and its
    digest. `binary`: it holds nothing but what is not stored, such as a picture. `cut` and `binary` results
    cannot be referenced by later steps. `unreadable`: the server answered the call, and nothing of that could be read.
    """

    text: str = ""
    output: JsonValue = None
    is_error: bool = False
    cut: bool = False
    binary: bool = False
    unreadable: bool = Field(default=False, exclude_if=_is_false)
    size: int = 0
    digest: str | None = None
