"""The client of the service, for REST calls and streams. It uses the standard library alone, to start fast."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from agent_runtime.domain.errors import AgentRuntimeError

Json = dict[str, Any]
T = TypeVar("T")

CALL_S = 60.0
"""The time limit of an answer in seconds; some answers wait for an MCP server to start."""

SILENCE_S = 40.0
"""Seconds without data after which a stream is lost: the service promises a comment every 15 s (G8)."""

PATIENCE_S = 15.0
"""Seconds that a service may take to restart while a task is followed."""

_RETRY_S = 0.2


class ServiceUnreachableError(AgentRuntimeError):
    """The service does not answer; the message contains its URL."""

    code = "service_unreachable"


class RefusedError(AgentRuntimeError):
    """The service refused a request. The message is that of the service, with every fault."""

    code = "refused"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnavailableError(RefusedError):
    """The service cannot accept the request now (503): its disk is full, or it is stopping."""

    code = "unavailable"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of the stream. `event` is `message` for a log line; progress of models and calls has an empty `id`."""

    id: str
    event: str
    data: str

    @property
    def seq(self) -> int:
        return int(self.id.partition(".")[0])

    @property
    def last(self) -> bool:
        return self.event == "message" and self.data == "[DONE]"


class Client:
    """Calls a service. `locate` returns its current URL, or None if it is not running.

    `key` is sent with every call. Every call raises: RefusedError, ServiceUnreachableError.
    """

    def __init__(self, locate: Callable[[], str | None], key: str | None = None) -> None:
        self._locate = locate
        self._authorization = {"Authorization": f"Bearer {key}"} if key else {}

    def submit(self, prompt: str) -> Json:
        """Create a task. An idempotency key makes it safe to retry after a lost connection."""
        headers = {"Idempotency-Key": token_hex(16)}
        try:
            return self._json("POST", "/v1/tasks", {"prompt": prompt}, headers)
        except ServiceUnreachableError:
            return self._json("POST", "/v1/tasks", {"prompt": prompt}, headers)

    def rerun(self, task_id: str, start: str) -> Json:
        """Create a task that runs a finished one again."""
        return self._json("POST", f"{_path(task_id)}/rerun", {"from": start}, {"Idempotency-Key": token_hex(16)})

    def tasks(self, status: str | None, limit: int, cursor: str | None = None) -> Json:
        query = {"limit": str(limit)} | ({"status": status} if status else {}) | ({"cursor": cursor} if cursor else {})
        return self._json("GET", f"/v1/tasks?{urlencode(query)}")

    def task(self, task_id: str) -> Json:
        return self._json("GET", _path(task_id))

    def audit(self, task_id: str) -> Json:
        return self._json("GET", f"{_path(task_id)}/audit")

    def approve(self, task_id: str, digest: str | None, comment: str | None = None) -> Json:
        return self._decide(task_id, "approve", plan_digest=digest, comment=comment)

    def reject(self, task_id: str, reason: str | None) -> Json:
        return self._decide(task_id, "reject", reason=reason)

    def revise(self, task_id: str, feedback: str) -> Json:
        return self._decide(task_id, "revise", feedback=feedback)

    def diff(self, task_id: str, before: int, after: int) -> str:
        """Return the differences between two revisions of the plan, as lines."""
        query = urlencode({"from": before, "to": after})
        return str(self._json("GET", f"{_path(task_id)}/plan/diff?{query}")["text"])

    def list_attempts(self, task_id: str) -> Json:
        """Return what a language model was asked for the plans of a task, and what it answered."""
        return self._json("GET", f"{_path(task_id)}/planning")

    def cancel(self, task_id: str, reason: str | None = None) -> Json:
        return self._decide(task_id, "cancel", reason=reason)

    def decide_call(self, task_id: str, verb: str, asked: Json, comment: str | None) -> Json:
        """Approve or deny a call, as `attention` shows it."""
        digest = asked["arguments_digest"]
        return self._decide(task_id, f"calls/{asked['call_id']}/{verb}", arguments_digest=digest, comment=comment)

    def answer(self, task_id: str, question_id: str, content: Json | None) -> Json:
        """Answer a question of a server, or decline it if `content` is None."""
        action = "decline" if content is None else "accept"
        return self._decide(task_id, f"answers/{quote(question_id, safe='')}", action=action, content=content)

    def resolve(self, task_id: str, **decision: Any) -> Json:
        return self._decide(task_id, "resolve", **decision)

    def tools(self, *, refresh: bool) -> Json:
        """Return the whole catalogue, from all of its pages."""
        if refresh:
            self._json("POST", "/v1/tools/refresh")
        page = self._json("GET", "/v1/tools")
        tools: list[Json] = page["tools"]
        while page["next_cursor"]:
            page = self._json("GET", f"/v1/tools?{urlencode({'cursor': page['next_cursor']})}")
            tools += page["tools"]
        return {"tools": tools}

    def reload(self) -> Json:
        """Reload the registry, and return the ids of added, changed and removed entries."""
        return self._json("POST", "/v1/tools/reload")

    def servers(self) -> list[Json]:
        servers: list[Json] = self._json("GET", "/v1/tools/status")  # type: ignore[assignment] # the one list
        return servers

    def ready(self, timeout_s: float) -> Json:
        return self._json("GET", "/readyz", timeout_s=timeout_s)

    def has_more(self, task_id: str, after: int) -> bool:
        """Return True if the journal of the task has events after number `after`."""
        page = self._json("GET", f"{_path(task_id)}/events?after={after}&limit=1")
        return bool(page["events"])

    def ask_until_answered(self, question: Callable[[], T]) -> T:
        """Return the answer to a read-only request; retry while the service may be restarting."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                return question()
            except (ServiceUnreachableError, UnavailableError):
                if time.monotonic() > give_up_at:
                    raise
            time.sleep(_RETRY_S)

    def follow(self, task_id: str, last: str = "") -> Iterator[Frame]:
        """Yield every frame after `last` once, to the end of the task. Reconnects after a lost connection (G8)."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            connected = False
            with (
                contextlib.suppress(ServiceUnreachableError, UnavailableError, OSError, HTTPException),
                self._stream(task_id, last) as frames,
            ):
                connected = True
                for frame in frames:
                    last = frame.id or last
                    yield frame
                    if frame.last:
                        return
            now = time.monotonic()
            if connected:
                give_up_at = now + PATIENCE_S
            elif now > give_up_at:
                raise ServiceUnreachableError(f"The service that ran task {task_id} is gone. What it did is kept.")
            time.sleep(_RETRY_S)

    @contextlib.contextmanager
    def _stream(self, task_id: str, last: str) -> Iterator[Iterator[Frame]]:
        """Yield the frames of one connection, until it is lost."""
        headers = {"Last-Event-ID": last} if last else {}
        with self._request("GET", f"{_path(task_id)}/stream", None, headers, SILENCE_S) as response:
            if response.status == 204:  # noqa: PLR2004 - the task has ended, and we have all frames
                yield iter([Frame(last, "message", "[DONE]")])
            else:
                yield frames_of(response)

    def _decide(self, task_id: str, verb: str, **body: Any) -> Json:
        given = {name: value for name, value in body.items() if value is not None}
        return self._json("POST", f"{_path(task_id)}/{verb}", given)

    def _json(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = CALL_S,
    ) -> Json:
        with self._request(method, path, body, headers or {}, timeout_s) as response:
            try:
                answer: Json = json.loads(response.read())
            except (OSError, HTTPException, ValueError) as error:
                raise ServiceUnreachableError(f"The answer of the service cannot be read: {error}.") from error
        return answer

    @contextlib.contextmanager
    def _request(
        self, method: str, path: str, body: Any, headers: dict[str, str], timeout_s: float
    ) -> Iterator[HTTPResponse]:
        """Send one request and yield its response. Raises: RefusedError, ServiceUnreachableError."""
        url = self._locate()
        if url is None:
            raise ServiceUnreachableError("The service has stopped; start it again with `agent-runtime serve`.")
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        data = None if body is None else json.dumps(body).encode()
        headers = {**headers, **self._authorization}
        if data is not None:
            headers = {**headers, "Content-Type": "application/json"}
        try:
            try:
                connection.request(method, parts.path + path, data, headers)
                response = connection.getresponse()
            except (OSError, HTTPException) as error:
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise ServiceUnreachableError(f"The service at {url} does not answer: {reason}.") from error
            if response.status >= 400:  # noqa: PLR2004 - all errors
                raise _refusal(response, url)
            yield response
        finally:
            connection.close()


def _refusal(response: HTTPResponse, url: str) -> AgentRuntimeError:
    try:
        problem = json.loads(response.read())
        faults = [f"  {fault['field']}: {fault['message']}" for fault in problem.get("errors", [])]
        message = "\n".join(["The request was refused:", *faults]) if faults else str(problem["detail"])
    except (OSError, HTTPException, ValueError, TypeError, KeyError, AttributeError):
        message = f"{url} answered {response.status} {response.reason}; is it an Agent Runtime?"
    if response.status == 401:  # noqa: PLR2004 - no valid key
        message += (
            "\nGive the command one: set AGENT_RUNTIME_API_KEY, or name its file with --key-file. "
            "The operator makes keys with `agent-runtime keys new`."
        )
    kind = UnavailableError if response.status == 503 else RefusedError  # noqa: PLR2004 - temporary
    return kind(message, response.status)


def frames_of(lines: Iterable[bytes]) -> Iterator[Frame]:
    """Parse Server-Sent Events by the HTML standard; the service sends one line of data in each."""
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.decode(errors="replace").rstrip("\r\n")
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield Frame(fields.get("id", ""), fields.get("event", "message"), fields["data"])
        fields = {}


_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def _path(task_id: str) -> str:
    if not _TASK_ID.fullmatch(task_id):  # it must not change the path of the request
        raise RefusedError(f"There is no task {task_id!r}.", 404)
    return f"/v1/tasks/{task_id}"
