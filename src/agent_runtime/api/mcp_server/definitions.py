"""The tools as clients see them: names, descriptions, schemas and annotations, and the scopes that they need."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import Tool, ToolAnnotations

from agent_runtime.domain.status import TaskStatus

NAME = "agent-runtime"
TITLE = "Agent Runtime"

TASK_META_KEY = "agent-runtime/task_id"
"""The key in `_meta` of a result that asks: the id of the task that the questions belong to."""

PATIENCE_META_KEY = "agent-runtime/question_s"
"""The key beside it: for how many seconds a question waits in the client (`limits.mcp_question_s`)."""

INSTRUCTIONS = (
    "Hand work to this service with submit_task: describe in one sentence what should be done. The service makes a "
    "plan of tool calls, a person approves it, and exactly that plan runs. You cannot approve a plan. If the client "
    "offers elicitation, the person is asked in the client. Otherwise the answer has an address in `decide`: show it "
    "to the person, and call wait_for_task with until='ended'. Give submit_task an idempotency_key, so that a "
    "repeated call makes no second task."
)

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0, 300
SUBMIT_WAIT_S, WAIT_S = 20, 30
"""The seconds that a call waits by default. Many clients give up after 60."""

_TEXT: Mapping[str, Any] = {"type": "string"}
_TEXT_OR_NULL: Mapping[str, Any] = {"type": ["string", "null"]}
_STATUSES = [str(status) for status in TaskStatus]


def _make_schema(properties: Mapping[str, Any], *required: str, closed: bool = True) -> dict[str, Any]:
    extra = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": dict(properties), "required": list(required), **extra}


def _make_wait(default: int, what: str) -> dict[str, Any]:
    return {
        "type": "number",
        "minimum": SHORTEST_WAIT_S,
        "maximum": LONGEST_WAIT_S,
        "default": default,
        "description": f"Seconds to wait for {what}. The time that a person takes for an answer is not counted.",
    }


_TASK_ID = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,100}$", "description": "The id that submit_task gave."}

_TASK = _make_schema(
    {
        "task_id": _TEXT,
        "status": {"type": "string", "enum": _STATUSES},
        "terminal": {"type": "boolean", "description": "True once the task has ended; its status never changes again."},
        "prompt": _TEXT,
        "plan": {**_TEXT_OR_NULL, "description": "The plan as numbered lines."},
        "plan_revision": {"type": "integer"},
        "plan_digest": {**_TEXT_OR_NULL, "description": "The digest that an approval names."},
        "steps": {"type": "array", "items": {"type": "object"}},
        "result": {**_TEXT_OR_NULL, "description": "The result, the error, or what the task does or asks now."},
        "error": {"type": ["object", "null"]},
        "attention": {"type": "array", "items": {"type": "object"}, "description": "The open questions to a person."},
        "decide": {
            "type": ["object", "null"],
            "description": "Where a person decides, if one is needed: a page, and a command for a terminal.",
            "properties": {"page": _TEXT, "command": _TEXT},
        },
        "notes": {"type": "array", "items": {"type": "string"}, "description": "What became of answers of a person."},
    },
    "task_id",
    "status",
    "terminal",
    "notes",
    closed=False,
)

_PAGE_OF_TASKS = _make_schema(
    {
        "tasks": {
            "type": "array",
            "items": _make_schema(
                {"task_id": _TEXT, "status": _TEXT, "prompt": _TEXT}, "task_id", "status", closed=False
            ),
        },
        "next_cursor": _TEXT_OR_NULL,
    },
    "tasks",
    "next_cursor",
    closed=False,
)

_PAGE_OF_TOOLS = _make_schema(
    {
        "tools": {
            "type": "array",
            "items": _make_schema({"server": _TEXT, "tool": _TEXT}, "server", "tool", closed=False),
        },
        "next_cursor": _TEXT_OR_NULL,
    },
    "tools",
    "next_cursor",
    closed=False,
)

_CURSOR = {"type": "string", "maxLength": 500, "description": "`next_cursor` of the page before."}


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool, and the scopes of which its caller needs one."""

    scopes: tuple[str, ...]
    tool: Tool


def _define(
    name: str,
    title: str,
    description: str,
    arguments: dict[str, Any],
    output: dict[str, Any],
    *scopes: str,
    reads: bool = True,
    repeatable: bool = True,
    destroys: bool = False,
    open_world: bool = False,
) -> ToolDefinition:
    annotations = ToolAnnotations(
        title=title,
        read_only_hint=reads,
        idempotent_hint=repeatable,
        destructive_hint=destroys,
        open_world_hint=open_world,
    )
    tool = Tool(
        name=name,
        title=title,
        description=description,
        input_schema=arguments,
        output_schema=output,
        annotations=annotations,
    )
    return ToolDefinition(scopes, tool)


_SUBMIT = _make_schema(
    {
        "prompt": {"type": "string", "minLength": 1, "description": "What should be done, in words."},
        "idempotency_key": {
            "type": "string",
            "pattern": r"^[\x21-\x7e]{1,255}$",
            "description": "Your own key for this task. A repeated call with the same arguments returns the same task.",
        },
        "tools": {
            "type": ["array", "null"],
            "items": {"type": "string"},
            "description": "The ids of the servers that the plan may use (see list_tools). Without it: all.",
        },
        "max_steps": {"type": "integer", "minimum": 1, "maximum": 100},
        "budget": {"type": "object", "description": "Limits: any of tool_calls, seconds, tokens."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Your own labels."},
        "thread": {"type": "string", "minLength": 1, "description": "The conversation that the task belongs to."},
        "plan": {
            "type": ["object", "null"],
            "description": (
                'A ready-made plan, instead of one that the service makes: {"goal": ..., "steps": [{"id": "s1", '
                '"kind": "tool", "server": ..., "tool": ..., "arguments": {...}}]}. A person approves it all the same.'
            ),
        },
        "wait_s": _make_wait(SUBMIT_WAIT_S, "the plan, and after its approval for the result"),
    },
    "prompt",
)

_WAIT = _make_schema(
    {
        "task_id": _TASK_ID,
        "wait_s": _make_wait(WAIT_S, "the task"),
        "until": {
            "type": "string",
            "enum": ["person_needed", "ended"],
            "default": "person_needed",
            "description": "`person_needed`: until the task ends or a person must decide. `ended`: until it ends.",
        },
    },
    "task_id",
)

_LIST = _make_schema(
    {
        "status": {"type": "string", "enum": _STATUSES, "description": "Only tasks of this status."},
        "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
        "cursor": _CURSOR,
    }
)

_LIST_TOOLS = _make_schema(
    {"limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}, "cursor": _CURSOR}
)

_CANCEL = _make_schema({"task_id": _TASK_ID, "reason": {"type": "string", "maxLength": 4096}}, "task_id")

TOOLS: Mapping[str, ToolDefinition] = {
    definition.tool.name: definition
    for definition in (
        _define(
            "submit_task",
            "Submit a task",
            "Hand a task to the service. It makes a plan of tool calls, which runs only after a person approves it.",
            _SUBMIT,
            _TASK,
            "submit",
            reads=False,
            repeatable=False,
            open_world=True,
        ),
        _define(
            "get_task",
            "Show a task",
            "Return the task now: its plan, its steps, its result, and what a person must decide.",
            _make_schema({"task_id": _TASK_ID}, "task_id"),
            _TASK,
            "read",
        ),
        _define(
            "wait_for_task",
            "Wait for a task",
            "Wait until the task ends or a person must decide, and return it. Call it again if the time was too short.",
            _WAIT,
            _TASK,
            "read",
        ),
        _define("list_tasks", "List tasks", "List the tasks, newest first, in pages.", _LIST, _PAGE_OF_TASKS, "read"),
        _define(
            "list_tools",
            "List the tools of plans",
            "List the tools that plans of this service may use, with their effects, in pages.",
            _LIST_TOOLS,
            _PAGE_OF_TOOLS,
            "read",
        ),
        _define(
            "cancel_task",
            "Cancel a task",
            "Cancel a task. No call starts after the answer.",
            _CANCEL,
            _TASK,
            "submit",
            "approve",
            reads=False,
            destroys=True,
        ),
    )
}
"""All tools by name. None of them approves anything."""
