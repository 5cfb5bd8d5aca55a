"""A client of the service for Python programs: `Client`, and `AsyncClient` for programs with an event loop.

It needs none of the service's parts, and its HTTP library is imported with the first request. See
docs/reference/python-client.md.
"""

from agent_runtime.client.async_client import AsyncClient
from agent_runtime.client.errors import (
    ApiError,
    ClientError,
    ConflictError,
    FieldError,
    ForbiddenError,
    InvalidRequestError,
    KeyRefusedError,
    NotFoundError,
    ServiceUnreachableError,
    UnavailableError,
)
from agent_runtime.client.frames import Frame
from agent_runtime.client.shapes import (
    Approved,
    CallQuestion,
    ChangedJournal,
    EventPage,
    InputQuestion,
    Model,
    Models,
    PlanDiff,
    Question,
    Server,
    Step,
    Task,
    TaskCreated,
    TaskPage,
    TaskStatus,
    TaskSummary,
    Tool,
)
from agent_runtime.client.sync_client import Client

__all__ = [
    "ApiError",
    "Approved",
    "AsyncClient",
    "CallQuestion",
    "ChangedJournal",
    "Client",
    "ClientError",
    "ConflictError",
    "EventPage",
    "FieldError",
    "ForbiddenError",
    "Frame",
    "InputQuestion",
    "InvalidRequestError",
    "KeyRefusedError",
    "Model",
    "Models",
    "NotFoundError",
    "PlanDiff",
    "Question",
    "Server",
    "ServiceUnreachableError",
    "Step",
    "Task",
    "TaskCreated",
    "TaskPage",
    "TaskStatus",
    "TaskSummary",
    "Tool",
    "UnavailableError",
]
