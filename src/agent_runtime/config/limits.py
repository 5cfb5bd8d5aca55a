"""The limits of guarantee G11, as settings."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from agent_runtime.config.section import Section
from agent_runtime.domain.references import ARGUMENT_BYTES
from agent_runtime.domain.task import JOURNAL_BYTES


class LimitSettings(Section):
    """The limits of guarantee G11. Sizes in bytes, times in seconds.

    While a server or a model cannot be reached, a task waits: for `outage_s` at most once its plan is approved, for
    `planning_outage_s` before; 0: not at all.
    `image_bytes`: the largest image of a result that is kept; 0: none is. `task_image_bytes`: all images of a task.
    """

    prompt_bytes: PositiveInt = 64 * 1024
    head_bytes: PositiveInt = 64 * 1024
    body_bytes: PositiveInt = 1024 * 1024
    json_depth: PositiveInt = 64
    stored_result_bytes: PositiveInt = 256 * 1024
    image_bytes: NonNegativeInt = 2 * 1024 * 1024
    task_image_bytes: NonNegativeInt = 16 * 1024 * 1024
    state_bytes: PositiveInt = 256 * 1024
    argument_bytes: PositiveInt = ARGUMENT_BYTES
    journal_bytes: PositiveInt = JOURNAL_BYTES
    server_line_bytes: PositiveInt = 4 * 1024 * 1024
    tools_per_server: PositiveInt = 500
    definition_bytes: PositiveInt = 64 * 1024
    definitions_bytes: PositiveInt = 8 * 1024 * 1024
    list_pages: PositiveInt = 20
    stderr_bytes: PositiveInt = 64 * 1024
    server_start_s: PositiveFloat = 20
    server_install_s: PositiveFloat = 300
    outage_s: NonNegativeFloat = Field(default=24 * 3600, le=366 * 86400)
    planning_outage_s: NonNegativeFloat = Field(default=120, le=366 * 86400)
    cancel_grace_s: PositiveFloat = 5
    concurrent_tasks: PositiveInt = 128
    tasks_on_same_servers: PositiveInt = 16
    calls_of_a_task: PositiveInt = 8
    concurrent_calls: PositiveInt = 1024
    request_head_s: PositiveFloat = 10
    request_body_s: PositiveFloat = 10
    connections: PositiveInt = 10_000
    stream_clients: PositiveInt = 2000
    mcp_sessions: PositiveInt = 1000
    mcp_session_s: PositiveFloat = 1800
    mcp_question_s: PositiveFloat = 600
    unread_bytes: PositiveInt = 256 * 1024 * 1024
    keep_alive_s: PositiveFloat = Field(default=15, le=15)
    shutdown_s: PositiveFloat = 10
