"""The shapes of responses about the service. `service_views` and `catalogue` fill them."""

from typing import Literal

from typing_extensions import TypedDict

from agent_runtime.domain.values import JsonObject


class StatusView(TypedDict):
    """The state of the service: its `model`, the number of `tasks` by status, and the state of the `servers` by id."""

    status: str
    version: str
    planner: str
    model: str | None
    tasks: dict[str, int]
    servers: dict[str, str]


class ToolView(TypedDict):
    """A tool of the catalogue. `detail` says why a tool is not `available`; its other fields may then be `null`."""

    server: str
    tool: str
    title: str | None
    description: str | None
    input_schema: JsonObject | None
    output_schema: JsonObject | None
    effect: str | None
    idempotent: bool | None
    open_world: bool | None
    approval: str | None
    timeout_s: float | None
    pin: str | None
    status: str
    detail: str | None


class ToolsView(TypedDict):
    """One page of the catalogue. `next_cursor` is `null` on the last page."""

    tools: list[ToolView]
    next_cursor: str | None


class ServerStatusView(TypedDict):
    """A server of the tool registry. `detail` is the number of its tools, or says why it is not `connected`.

    `stderr`: the end of what its newest process wrote to its stderr, at most 2,000 characters; empty if there is none.
    """

    id: str
    name: str
    type: str
    enabled: bool
    connected: bool
    circuit: Literal["closed", "half_open", "open"]
    spares: int
    detail: str
    stderr: str


class RegistryChangesView(TypedDict):
    """The changes of a reload of the tool registry, by the ids of its entries."""

    added: list[str]
    changed: list[str]
    removed: list[str]


class ModelView(TypedDict):
    """The state of a language model after its last request. `model` is `null` until the endpoint said which it has.

    `output` is the way in which it is held to a schema, or `null` if that is not known yet. `circuit` is `open` while
    it gets no requests because it failed too often. `last_error` is `null` after a successful answer.
    """

    endpoint: str
    model: str | None
    api: Literal["responses", "chat_completions"]
    circuit: Literal["closed", "half_open", "open"]
    output: Literal["json_schema", "json_object", "prompt"] | None
    last_error: str | None


class ModelsStatusView(TypedDict):
    """The planner and the language model; `model` is `null` if none is configured.

    `revision_help` says in one sentence what feedback on a plan the planner understands; `null` if it reads any.
    """

    planner: str
    revision_help: str | None
    model: ModelView | None
