"""The requests of both clients: what they send, and when they try again. No input or output happens here."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from agent_runtime.client.errors import NotFoundError, ServiceUnreachableError
from agent_runtime.client.shapes import Task

ANSWER_S = 60.0
"""The time limit of an answer in seconds; some answers wait for an MCP server to start."""

AWAY_S = 30.0
"""The seconds that a service may be away, such as during a restart, while a task is followed."""

ASKING = frozenset(
    {"plan.proposed", "plan.edited", "plan.repinned", "plan.revision_failed"}
    | {"call.approval_requested", "step.outcome_unknown", "input.requested"}
)
"""The events after which a task may wait for a person. Events of parallel steps may still follow."""

Url = str | Callable[[], str | None]
"""The URL of a service, or a function that returns its current one, or None while it is not running."""

_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_ERRNO = re.compile(r"^\[Errno -?[0-9]+\] ")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `repeatable`: it may be sent again after a lost answer."""

    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = ANSWER_S
    repeatable: bool = False


def task_path(task_id: str, *more: str) -> str:
    """Return a path of a task. Raises: NotFoundError for an id that no task can have."""
    if not _TASK_ID.fullmatch(task_id):  # it must not change the path of the request
        raise NotFoundError(404, f"There is no task {task_id!r}.", code="task_not_found")
    return "/".join(["/v1/tasks", task_id, *(quote(part, safe="") for part in more)])


def with_query(path: str, **query: object) -> str:
    """Return the path with the parameters that are not None. A `_` at the end of a name is left out: `from_`."""
    given = {name.removesuffix("_"): str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def post(path: str, **body: object) -> Request:
    """Return a request with the fields that are not None. A `_` at the end of a name is left out: `from_`."""
    return Request("POST", path, {name.removesuffix("_"): value for name, value in body.items() if value is not None})


def create(path: str, idempotency_key: str | None, **body: object) -> Request:
    """Return a request that creates a task; its idempotency key makes it safe to send again."""
    headers = {"Idempotency-Key": idempotency_key or token_hex(16)}
    return Request("POST", path, post(path, **body).body, headers, repeatable=True)


def stream(task_id: str, last: str, silence_s: float) -> Request:
    """Return the request for the frames after `last`. The stream is lost after `silence_s` seconds without data."""
    headers = {"Last-Event-ID": last} if last else {}
    return Request("GET", task_path(task_id, "stream"), headers=headers, timeout_s=silence_s)


def waits_for_person(task: Task) -> bool:
    """Return True if the task does nothing until a person decides or answers."""
    return task["status"] in {"awaiting_approval", "needs_attention"} and not task["cancel_requested"]


def is_settled(task: Task) -> bool:
    """Return True if the task has ended or waits for a person."""
    return task["terminal"] or waits_for_person(task)


def transport_options(url: str) -> dict[str, Any]:
    """Return options of the HTTP library. On this machine: no proxies, and no certificates for plain HTTP."""
    parts = urlsplit(url)
    if parts.hostname not in _LOOPBACK:
        return {}
    # Loading certificates takes a quarter of a second.
    return {"trust_env": False, **({"verify": False} if parts.scheme == "http" else {})}


def address_of(url: Url) -> str:
    """Return the URL of the service, without a slash at its end. Raises: ServiceUnreachableError if it has none now."""
    current = url() if callable(url) else url
    if current is None:
        raise ServiceUnreachableError("The service has stopped; start it again with `agent-runtime serve`.")
    return current.rstrip("/")


def unreachable(url: str, error: Exception) -> ServiceUnreachableError:
    """Return the error for a request that got no answer."""
    reason = _ERRNO.sub("", str(error)).rstrip(".") or type(error).__name__
    return ServiceUnreachableError(f"The service at {url} does not answer: {reason}.")


def parse_answer(url: str, body: bytes) -> Any:
    """Return the JSON value of an answer. Raises: ServiceUnreachableError if it is not JSON."""
    try:
        return json.loads(body)
    except ValueError as error:
        raise ServiceUnreachableError(f"The answer of {url} is not JSON; is it an Agent Runtime?") from error


def headers_of(request: Request, key: str | None) -> dict[str, str]:
    """Return the headers to send."""
    return {**request.headers, **({"Authorization": f"Bearer {key}"} if key else {})}
