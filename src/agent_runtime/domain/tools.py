"""Registry entries of MCP servers, the tool definitions of the servers, and the tools that follow from both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, ValidationInfo

from agent_runtime.domain.images import ImageReference
from agent_runtime.domain.omissions import is_empty, is_none
from agent_runtime.domain.schema_reading import read_schema
from agent_runtime.domain.schema_sets import with_sorted_sets
from agent_runtime.domain.values import Identifier, JsonObject, JsonValue, Value, digest


class Effect(StrEnum):
    """The effect that a tool may have. Unknown is treated as the worst."""

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
    """The operator's policy for one tool, or for all that a glob matches. None: not specified.

    `timeout_s` counts from the last report of progress. `max_timeout_s`: the limit for a call that reports progress.
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
        raise ValueError("is compared literally, so nothing is replaced: write the text itself, without ${")
    return pattern


def _check_path(path: str) -> str:
    if not all(path.split(".")):
        raise ValueError("must be the name of an argument, or names with dots between them, as in 'options.path'")
    return path


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_check_pattern)]
"""A case-sensitive glob (`*`, `?`, `[abc]`)."""


class Denial(Value):
    """A rule of the operator: matching calls are never made, whoever approved them; see `deny.py`.

    A call matches if each path in `arguments` leads to a value that its glob matches; without paths every call of the
    tool matches. `reason` is shown to whoever proposed the call.
    """

    tool: Pattern = "*"
    arguments: Mapping[Annotated[str, AfterValidator(_check_path)], Pattern] = {}
    reason: str | None = None

    @property
    def told(self) -> str:
        """Return the message for a refused call: the reason, and the rule as the operator wrote it."""
        where = " and ".join(f"{path} like {pattern!r}" for path, pattern in self.arguments.items())
        rule = f"deny {self.tool!r}{' with ' if where else ''}{where}"
        return f"denied by the operator: {self.reason} ({rule})" if self.reason else f"denied by the operator ({rule})"


class ServerDenial(Denial):
    """A denial for all servers whose id matches a glob."""

    server: Pattern = "*"


def _normalize_mode(mode: object) -> object:
    """Return `off` for False: YAML reads the word `off` as False."""
    return "off" if mode is False else mode


class Sandbox(Value):
    """The confinement of a stdio server. Mode `auto`: its own namespaces if bubblewrap works.

    `network` False: no network, and no Unix sockets of others. `read`: only these paths are visible. `write`: only
    these paths are writable.
    """

    mode: Annotated[Literal["auto", "off", "required"], BeforeValidator(_normalize_mode)] = "auto"
    network: bool = True
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()

    @property
    def is_limited(self) -> bool:
        """Return whether it restricts anything beyond the permissions of the user."""
        return not self.network or bool(self.read or self.write)


class StdioConfig(Value):
    """A command that speaks MCP on its standard streams. Its environment: `env` and a short list of safe variables."""

    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    cwd: str | None = None


class HttpConfig(Value):
    """The URL of a streamable HTTP server, and the headers to send."""

    base_url: str = Field(min_length=1, pattern=r"^https?://")
    headers: Mapping[str, str] = {}


class BuiltinConfig(Value):
    """A server that ships with the service and runs in its process. `server` is its name in `builtin/servers.py`."""

    server: str
    root: str | None = None


class PythonConfig(Value):
    """Python code that runs in this process: the object `module:object`, or the module alone.

    `folder`: where the module is looked for first; None: the folder of the registry.
    `source`: the digest of the file of the module. It is filled in where the registry names none.
    """

    object: str = Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*(\.[^\W\d]\w*)*)?$")
    folder: str | None = None
    source: str | None = None

    @property
    def module(self) -> str:
        return self.object.partition(":")[0]

    @property
    def attributes(self) -> Sequence[str]:
        """The names that lead from the module to the object."""
        path = self.object.partition(":")[2]
        return path.split(".") if path else ()


class _Entry(Value):
    id: Identifier
    name: str | None = None
    enabled: bool = True
    client_session_timeout_seconds: PositiveFloat = 60
    tools: Mapping[str, ToolPolicy] = {}
    deny: tuple[Denial, ...] = ()

    def policy_for(self, tool: str) -> ToolPolicy:
        """Return the operator's policy for a tool: its exact name comes first, then globs in the order of the file."""
        said: dict[str, Any] = {}
        exact = [self.tools[tool]] if tool in self.tools else []
        globs = [policy for pattern, policy in self.tools.items() if pattern != tool and fnmatchcase(tool, pattern)]
        for policy in [*exact, *globs]:
            for name, value in policy:
                if value is not None:
                    said.setdefault(name, value)
        return ToolPolicy(**said)


def _check_spares(spares: int, info: ValidationInfo) -> int:
    if spares and info.data.get("scope") == "shared":
        raise ValueError("a shared server needs no spare: leave spares out, or write scope: task")
    return spares


class StdioServer(_Entry):
    """An MCP server that the runtime starts as a process.

    `spares`: the processes to keep ready for the next task, while tasks use the server; 0 or 1, for scope `task` only.
    `stop_s`: the seconds between the request to stop and SIGKILL.
    """

    type: Literal["local_stdio"]
    config: StdioConfig
    scope: Literal["task", "shared"] = "task"
    trust: Literal["none", "annotations"] = "none"
    sandbox: Sandbox = Sandbox()
    spares: Annotated[int, Field(strict=True, ge=0, le=1), AfterValidator(_check_spares)] = 1
    stop_s: float = Field(default=5, ge=5, le=9)

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The parts of the entry that pins of form 1 cover."""
        return {"type": self.type, "argv": [self.config.command, *self.config.args]}


class HttpServer(_Entry):
    """A remote MCP server, reached over streamable HTTP."""

    type: Literal["remote_http"]
    config: HttpConfig
    scope: Literal["task", "shared"] = "shared"
    trust: Literal["none", "annotations"] = "none"

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The parts of the entry that pins of form 1 cover."""
        return {"type": self.type, "url": self.config.base_url}


class BuiltinServer(_Entry):
    """An MCP server that ships with the service. Its annotations are trusted."""

    type: Literal["builtin"]
    config: BuiltinConfig
    scope: Literal["shared"] = "shared"
    trust: Literal["none", "annotations"] = "annotations"

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The parts of the entry that pins of form 1 cover."""
        return {"type": self.type, "server": self.config.server, "root": self.config.root}


class PythonServer(_Entry):
    """An MCP server of the operator's Python code, in this process. The code is trusted, and not confined."""

    type: Literal["python"]
    config: PythonConfig
    scope: Literal["shared"] = "shared"
    trust: Literal["none", "annotations"] = "none"

    @property
    def identity_of_form_1(self) -> JsonObject:
        """The parts of the entry that pins of form 1 cover."""
        return {"type": self.type, "object": self.config.object}


ToolServer = Annotated[StdioServer | HttpServer | BuiltinServer | PythonServer, Field(discriminator="type")]
"""One entry of tool_registry.yaml. Adapters dispatch on its `type`."""


HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
"""The behaviour annotations of MCP. Values other than `true` and `false` are ignored."""


class ToolDefinition(BaseModel):
    """A tool as its server defines it, with the field names of MCP. Untrusted unless the operator trusts the server."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    title: str | None = None
    description: str | None = None
    inputSchema: JsonObject = Field(default_factory=dict)  # noqa: N815 - the names in MCP are what is pinned
    outputSchema: JsonObject | None = None  # noqa: N815
    annotations: JsonObject | None = None

    @cached_property
    def arguments_schema(self) -> JsonObject:
        """The normalized input schema; see `schema_reading.py`."""
        try:
            return read_schema(self.inputSchema)
        except RecursionError:
            return self.inputSchema  # the schema check rejects it

    @cached_property
    def pin(self) -> str:
        """The digest of this definition (G6). The order of lists that are sets, such as `required`, does not count.

        Raises: ValueError where JSON cannot carry the definition exactly.
        """
        return digest(self.as_pinned())

    def as_pinned(self) -> JsonObject:
        """Return the JSON from which the pin is computed."""
        data = self.model_dump()
        return {**data, **{name: with_sorted_sets(data[name]) for name in ("inputSchema", "outputSchema")}}

    def pin_of_form_1(self, identity: JsonObject) -> str:
        """Return the pin of contracts of form 1: one digest of the definition and the server's identity.

        Raises: ValueError where JSON cannot carry the definition exactly.
        """
        return digest({"identity": identity, "definition": self.model_dump()})


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools that a server lists. `left_out`: by name, why each other tool cannot be used."""

    definitions: Sequence[ToolDefinition] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ToolDefinition]:
        return iter(self.definitions)

    def __len__(self) -> int:
        return len(self.definitions)


class JudgedDefinition(Value):
    """A checked definition. `fault`: why its schema cannot be used, or None."""

    definition: ToolDefinition
    fault: str | None = None


class Tool(Value):
    """A tool that a plan may use: its definition, its pin and its properties.

    `identity`: the digest of its server's identity. `vouched`: the operator declared that the approval of the plan is
    enough, wherever the arguments come from. `max_timeout_s`: the limit in seconds for a call that reports progress;
    None: `TIMES_THE_TIMEOUT` times its timeout. `denials`: those that apply to this tool.
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
        """Return why every call of it is denied; None if that depends on the arguments, or there is no denial."""
        return next((denial.told for denial in self.denials if not denial.arguments), None)

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def key(self) -> str:
        """`server/tool`, the key in plans, pins and policies."""
        return tool_key(self.server, self.definition.name)


def tool_key(server: str, tool: str) -> str:
    """Return `server/tool`. Ids of servers have no slash, so the key is unique."""
    return f"{server}/{tool}"


def describe_tool(server: ToolServer, definition: ToolDefinition, identity: str = "") -> Tool:
    """Return a tool with properties from the operator's policy and the server's annotations.

    Untrusted annotations can only make the properties stricter. `identity`: the digest of the server's identity.
    Raises: ValueError if the definition cannot be pinned.
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
    """The result of a call as the journal stores it.

    `text`: the text blocks joined by newlines, with other blocks named in their place. `output`: the structured
    content, or None. `cut`: the result was over the limit; only the start of its text is stored, with the original
    `size` in bytes and its `digest`. `binary`: it has only content that is no text, such as images. Later steps
    cannot reference `cut` and `binary` results. `unreadable`: the server's answer could not be read.
    `unsent`: the call certainly never left, because its server could not be reached.
    `retry_after_s`: the server could not answer now (HTTP 429, 503), and asks to be left alone for these seconds; 0 if
    it names no time. None: the result is not due to an outage. `images`: those that are kept beside the journal.
    """

    text: str = ""
    output: JsonValue = None
    is_error: bool = False
    cut: bool = False
    binary: bool = False
    unreadable: bool = Field(default=False, exclude_if=_is_false)
    unsent: bool = Field(default=False, exclude_if=_is_false)
    retry_after_s: float | None = Field(default=None, exclude_if=is_none)
    size: int = 0
    digest: str | None = None
    images: tuple[ImageReference, ...] = Field(default=(), exclude_if=is_empty)
