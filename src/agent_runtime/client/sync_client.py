"""The client for programs without an event loop. `AsyncClient` has the same verbs."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from http import HTTPStatus
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from agent_runtime.client import requests, shapes
from agent_runtime.client.errors import ClientError, ServiceUnreachableError, UnavailableError, read_error
from agent_runtime.client.frames import END, Frame, FrameReader
from agent_runtime.client.requests import Request, post, task_path, with_query
from agent_runtime.client.retries import Retries

if TYPE_CHECKING:
    import httpx2

Answer = TypeVar("Answer")


class Client:
    """Calls a service. Use it in a `with` statement, or call `close`. Threads may share it.

    `url` is the address of the service, or a function that returns the current one. `key` is sent with every request.
    While a task is followed, the service may be away for `away_s` seconds, such as during a restart. Every method
    raises: ApiError, ServiceUnreachableError.
    """

    def __init__(self, url: requests.Url, key: str | None = None, *, away_s: float = requests.AWAY_S) -> None:
        self._url = url
        self._key = key
        self._away_s = away_s
        self._http: httpx2.Client | None = None
        self._opening = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> requests.Url:
        """The address of the service, or the function that returns it."""
        return self._url

    def close(self) -> None:
        """Close the connections. Idempotent."""
        if self._http is not None:
            self._http.close()
            self._http = None

    # Tasks

    def submit(
        self,
        prompt: str,
        *,
        plan: Mapping[str, Any] | None = None,
        approval: Literal["manual", "auto"] | None = None,
        tools: list[str] | None = None,
        max_steps: int | None = None,
        budget: Mapping[str, float] | None = None,
        metadata: Mapping[str, str] | None = None,
        thread: str | None = None,
        idempotency_key: str | None = None,
    ) -> shapes.TaskCreated:
        """Submit a task, or with `plan` a ready-made plan.

        If the answer is lost, the request is sent again. An idempotency key makes sure that there is one task; give
        your own to make that safe also over a restart of your program.
        """
        options = {"approval": approval, "tools": tools, "max_steps": max_steps, "budget": budget, "metadata": metadata}
        body = {"prompt": prompt, "plan": plan, "thread": thread, **options}
        return self._call(shapes.TaskCreated, requests.create("/v1/tasks", idempotency_key, **body))

    def rerun(
        self,
        task_id: str,
        start: Literal["start", "failed_step"] = "start",
        *,
        approval: Literal["manual", "auto"] | None = None,
        idempotency_key: str | None = None,
    ) -> shapes.TaskCreated:
        """Run a finished task again, as a new task. It is sent again if the answer is lost, like `submit`."""
        path = task_path(task_id, "rerun")
        return self._call(shapes.TaskCreated, requests.create(path, idempotency_key, from_=start, approval=approval))

    def get_task(self, task_id: str) -> shapes.Task:
        """Return the current state of a task."""
        return self._call(shapes.Task, Request("GET", task_path(task_id)))

    def list_tasks(
        self,
        status: shapes.TaskStatus | None = None,
        *,
        thread: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> shapes.TaskPage:
        """Return a page of tasks, newest first; with `thread`, those of a conversation."""
        path = with_query("/v1/tasks", status=status, thread=thread, limit=limit, cursor=cursor)
        return self._call(shapes.TaskPage, Request("GET", path))

    def delete_task(self, task_id: str) -> None:
        """Delete a task that has ended, with its journal."""
        with self._send(Request("DELETE", task_path(task_id))):
            pass

    def list_events(self, task_id: str, *, after: int = 0, limit: int | None = None) -> shapes.EventPage:
        """Return a page of the journal of a task: the events after number `after`."""
        path = with_query(task_path(task_id, "events"), after=after, limit=limit)
        return self._call(shapes.EventPage, Request("GET", path))

    def export_audit(self, task_id: str) -> dict[str, Any]:
        """Return everything that an audit of the task needs; `agent-runtime audit verify --file` checks it."""
        return self._call(dict[str, Any], Request("GET", task_path(task_id, "audit")))

    def load_image(self, task_id: str, digest: str) -> bytes:
        """Return the bytes of an image in a result of the task: `tool.returned` has its digest and its media type."""
        with self._send(Request("GET", task_path(task_id, "images", digest))) as response:
            return response.read()

    def list_planning_attempts(self, task_id: str) -> dict[str, Any]:
        """Return what a language model was asked for the plans of a task, and what it answered."""
        return self._call(dict[str, Any], Request("GET", task_path(task_id, "planning")))

    def compare_revisions(self, task_id: str, before: int, after: int) -> shapes.PlanDiff:
        """Return the differences between two revisions of the plan."""
        path = with_query(task_path(task_id, "plan", "diff"), from_=before, to=after)
        return self._call(shapes.PlanDiff, Request("GET", path))

    # Decisions

    def approve(self, task_id: str, plan_digest: str | None = None, *, comment: str | None = None) -> shapes.Approved:
        """Approve the plan with this digest, which then runs. Without a digest, only revision 1 can be approved."""
        body = {"plan_digest": plan_digest, "comment": comment}
        return self._call(shapes.Approved, post(task_path(task_id, "approve"), **body))

    def reject(self, task_id: str, *, reason: str | None = None) -> shapes.Task:
        """Reject the plan, which ends the task."""
        return self._call(shapes.Task, post(task_path(task_id, "reject"), reason=reason))

    def revise(self, task_id: str, feedback: str) -> shapes.Task:
        """Have the task planned again, with feedback on its plan."""
        return self._call(shapes.Task, post(task_path(task_id, "revise"), feedback=feedback))

    def edit(self, task_id: str, plan: Mapping[str, Any], plan_digest: str) -> shapes.Task:
        """Replace the plan with this digest by an edited plan, which awaits approval too."""
        headers = {"If-Match": f'"{plan_digest}"'}
        return self._call(shapes.Task, Request("PUT", task_path(task_id, "plan"), dict(plan), headers))

    def cancel(self, task_id: str, *, reason: str | None = None) -> shapes.Task:
        """Cancel the task. No call starts after the answer."""
        return self._call(shapes.Task, post(task_path(task_id, "cancel"), reason=reason))

    def approve_call(
        self,
        task_id: str,
        call_id: str,
        arguments_digest: str,
        *,
        comment: str | None = None,
        edited_arguments: Mapping[str, Any] | None = None,
    ) -> shapes.Task:
        """Let a call be sent with the arguments of this digest, which `attention` of the task shows.

        With `edited_arguments` it is sent with those instead, which takes the scope `submit` too.
        """
        body: dict[str, Any] = {"arguments_digest": arguments_digest, "comment": comment}
        if edited_arguments is not None:
            body["edited_arguments"] = dict(edited_arguments)
        return self._call(shapes.Task, post(task_path(task_id, "calls", call_id, "approve"), **body))

    def deny_call(
        self, task_id: str, call_id: str, arguments_digest: str, *, comment: str | None = None
    ) -> shapes.Task:
        """Deny a call that `attention` of the task shows. Its step fails, and steps that need it are skipped."""
        body = {"arguments_digest": arguments_digest, "comment": comment}
        return self._call(shapes.Task, post(task_path(task_id, "calls", call_id, "deny"), **body))

    def answer(self, task_id: str, question_id: str, content: Mapping[str, Any] | None) -> shapes.Task:
        """Answer a question of a server that `attention` of the task shows, or decline it if `content` is None."""
        action = "decline" if content is None else "accept"
        path = task_path(task_id, "answers", question_id)
        return self._call(shapes.Task, post(path, action=action, content=content))

    def dismiss(self, task_id: str, question_id: str) -> shapes.Task:
        """Dismiss a question of a server: it learns that you neither answered nor declined."""
        return self._call(shapes.Task, post(task_path(task_id, "answers", question_id), action="cancel"))

    def resolve(
        self,
        task_id: str,
        step_id: str,
        resolution: Literal["done", "retry", "skip", "fail"],
        *,
        call_id: str | None = None,
        output: object = None,
        comment: str | None = None,
    ) -> shapes.Task:
        """Say what became of a call of unknown outcome. `output` is its result, with `done` only."""
        body = {"call_id": call_id, "resolution": resolution, "output": output, "comment": comment}
        return self._call(shapes.Task, post(task_path(task_id, "resolve"), step_id=step_id, **body))

    # What happens

    def follow(self, task_id: str, after: str = "", *, timeout_s: float | None = None) -> Generator[Frame]:
        """Yield every frame of the task after the frame with the id `after`, each once, until the task ends.

        A lost connection, a restart of the service and a refusal for the moment (503) are waited for, and the stream
        goes on after the last frame. Raises: ServiceUnreachableError or UnavailableError if the service is away for
        longer than `away_s`; TimeoutError after `timeout_s` in all.
        """
        retries = Retries(self._away_s, timeout_s)
        last = after
        while True:
            lost: ClientError | None = None
            try:
                with closing(self._frames(task_id, last, retries)) as frames:
                    for frame in frames:
                        if frame.is_end:
                            return
                        last = frame.id or last
                        yield frame
            except (ServiceUnreachableError, UnavailableError) as error:
                lost = error
            time.sleep(retries.pause_after(lost))

    def wait(self, task_id: str, *, timeout_s: float | None = None) -> shapes.Task:
        """Return the task as soon as it has ended or waits for a person. Raises: as `follow` does."""
        task = self.until_answered(lambda: self.get_task(task_id))
        if requests.is_settled(task):
            return task
        asks = False
        with closing(self.follow(task_id, timeout_s=timeout_s)) as frames:
            for frame in frames:
                if frame.event in requests.ASKING or (asks and not frame.is_line):
                    task = self.until_answered(lambda: self.get_task(task_id))
                    if requests.is_settled(task):
                        return task
                    asks = bool(task["attention"])
        return self.until_answered(lambda: self.get_task(task_id))

    def until_answered(self, read: Callable[[], Answer]) -> Answer:
        """Return what `read` returns, which only reads; call it again while the service is away, up to `away_s`."""
        retries = Retries(self._away_s)
        while True:
            try:
                return read()
            except (ServiceUnreachableError, UnavailableError) as error:
                lost = error
            time.sleep(retries.pause_after(lost))

    # Tools and the service

    def list_tools(self, *, refresh: bool = False) -> list[shapes.Tool]:
        """Return the whole catalogue. With `refresh`, every server is asked again first."""
        if refresh:
            self.refresh_tools()
        tools: list[shapes.Tool] = []
        cursor: str | None = None
        while True:
            page = self._call(shapes.ToolPage, Request("GET", with_query("/v1/tools", cursor=cursor)))
            tools += page["tools"]
            cursor = page["next_cursor"]
            if cursor is None:
                return tools

    def refresh_tools(self, server: str | None = None) -> list[shapes.Server]:
        """Ask every server again what it offers, or only one, and return the state of all servers."""
        path = with_query("/v1/tools/refresh", server=server)
        return self._call(list[shapes.Server], Request("POST", path))

    def list_servers(self) -> list[shapes.Server]:
        """Return the servers of the tool registry with their state."""
        return self._call(list[shapes.Server], Request("GET", "/v1/tools/status"))

    def reload_tools(self) -> dict[str, list[str]]:
        """Have the tool registry read again. Return the ids that were `added`, `changed` and `removed`."""
        return self._call(dict[str, list[str]], Request("POST", "/v1/tools/reload"))

    def get_models(self) -> shapes.Models:
        """Return the planner and the state of the language model, without a request to it."""
        return self._call(shapes.Models, Request("GET", "/v1/models/status"))

    def check_ready(self, timeout_s: float = requests.ANSWER_S) -> None:
        """Check that the service accepts tasks. Raises: UnavailableError if it does not yet."""
        self._call(dict[str, Any], Request("GET", "/readyz", timeout_s=timeout_s))

    # Sending

    def _call(self, shape: type[Answer], request: Request) -> Answer:
        """Return the parsed answer to a request."""
        try:
            return self._read_answer(shape, request)
        except ServiceUnreachableError:
            if not request.repeatable:
                raise
        return self._read_answer(shape, request)

    def _read_answer(self, shape: type[Answer], request: Request) -> Answer:  # noqa: ARG002 - for the type checker
        with self._send(request) as response:
            answer: Answer = requests.parse_answer(str(response.url), response.read())
        return answer

    def _frames(self, task_id: str, last: str, retries: Retries) -> Generator[Frame]:
        """Yield the frames of one connection, until it is lost."""
        with self._send(requests.stream(task_id, last, retries.silence_s())) as response:
            retries.restart()
            if response.status_code == HTTPStatus.NO_CONTENT:
                yield END
            reader = FrameReader()
            for data in response.iter_bytes():
                retries.check()
                yield from reader.read(data)

    @contextmanager
    def _send(self, request: Request) -> Iterator["httpx2.Response"]:
        """Send a request and yield its response, whose body is not read yet."""
        import httpx2  # noqa: PLC0415 - takes a quarter of a second, which a program may want to spend later

        url = requests.address_of(self._url)
        with self._opening:
            if self._http is None:
                self._http = httpx2.Client(**requests.transport_options(url))
        headers = requests.headers_of(request, self._key)
        options: dict[str, Any] = {"json": request.body, "headers": headers, "timeout": request.timeout_s}
        try:
            with self._http.stream(request.method, url + request.path, **options) as response:
                if not response.is_success:
                    retry_after = response.headers.get("Retry-After")
                    raise read_error(url, response.status_code, retry_after, response.read())
                yield response
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise requests.unreachable(url, error) from error
