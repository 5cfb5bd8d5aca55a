"""The parts of the Python clients that need no service, and a stream that is cut."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, get_args, get_type_hints

import pytest

from agent_runtime import client as clients
from agent_runtime.api import service_shapes
from agent_runtime.api import shapes as sent
from agent_runtime.client import AsyncClient, Client, Frame, NotFoundError, UnavailableError, shapes
from agent_runtime.client.errors import FieldError, ServiceUnreachableError, read_error
from agent_runtime.client.frames import END, FrameReader
from agent_runtime.client.retries import Retries
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus

SHAPES: dict[type, type] = {
    shapes.Task: sent.TaskView,
    shapes.TaskSummary: sent.SummaryView,
    shapes.TaskPage: sent.PageView,
    shapes.TaskCreated: sent.TaskCreated,
    shapes.TaskLinks: sent.TaskLinks,
    shapes.Approved: sent.Approved,
    shapes.TaskError: sent.ErrorView,
    shapes.Touch: sent.TouchView,
    shapes.Preview: sent.PreviewView,
    shapes.Step: sent.StepView,
    shapes.Approval: sent.ApprovalView,
    shapes.CallQuestion: sent.AttentionView,
    shapes.InputQuestion: sent.InputView,
    shapes.ChangedJournal: sent.JournalChangedView,
    shapes.Waiting: sent.WaitingView,
    shapes.RepeatedCall: sent.RepeatedCallView,
    shapes.Rerun: sent.RerunView,
    shapes.Usage: sent.UsageView,
    shapes.Event: sent.EventView,
    shapes.EventPage: sent.EventsView,
    shapes.Difference: sent.DifferenceView,
    shapes.Change: sent.ChangeView,
    shapes.PlanDiff: sent.DiffView,
    shapes.Tool: service_shapes.ToolView,
    shapes.ToolPage: service_shapes.ToolsView,
    shapes.Server: service_shapes.ServerStatusView,
    shapes.Model: service_shapes.ModelView,
    shapes.Models: service_shapes.ModelsStatusView,
}
STREAM = (
    b': keep-alive\n\nid: 1.0\r\nevent: task.submitted\r\ndata: {"a": 1}\r\n\r\n'
    b"id: 1.1\ndata: Hello: you\xe2\x80\xa8\n\nid: 2.0\nda"
)


def test_importing_the_client_imports_nothing_of_the_service() -> None:
    code = """
import sys, time
import agent_runtime.client
spent = time.process_time()
heavy = {"fastapi", "starlette", "mcp", "openai", "agents", "pydantic", "httpx2", "asyncio", "structlog"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
ours = {name for name in sys.modules if name.startswith("agent_runtime.")}
assert all(name.startswith("agent_runtime.client") for name in ours), ours
assert spent < 3, spent
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


def verbs(kind: type) -> dict[str, list[inspect.Parameter]]:
    """Return the public methods of a client with their parameters."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {
        name: list(inspect.signature(method).parameters.values())[1:]
        for name, method in found
        if not name.startswith("_")
    }


def test_both_clients_have_the_same_verbs() -> None:
    ours, other = verbs(Client), verbs(AsyncClient)
    assert [one.name for one in ours.pop("until_answered")] == [one.name for one in other.pop("until_answered")]
    assert ours == other
    assert {"submit", "follow", "wait", "approve", "edit", "cancel", "answer", "dismiss"} <= set(ours)


@pytest.mark.parametrize(("ours", "theirs"), SHAPES.items(), ids=[kind.__name__ for kind in SHAPES])
def test_the_shapes_have_the_fields_that_the_service_sends(ours: type, theirs: type) -> None:
    assert set(ours.__annotations__) == set(theirs.__annotations__)


def test_the_statuses_are_those_of_the_service() -> None:
    assert list(get_args(shapes.TaskStatus)) == [str(status) for status in TaskStatus]
    assert list(get_args(get_type_hints(shapes.Step)["status"])) == [str(status) for status in StepStatus]


def test_everything_that_is_exported_exists() -> None:
    assert all(hasattr(clients, name) for name in clients.__all__)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_are_read_wherever_their_bytes_are_cut(size: int) -> None:
    reader = FrameReader()
    parts = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    frames = [frame for part in parts for frame in reader.read(part)]
    assert frames == [Frame("1.0", "task.submitted", '{"a": 1}'), Frame("1.1", "message", "Hello: you\u2028")]
    assert [frame.seq for frame in frames] == [1, 1]
    assert [frame.is_line for frame in frames] == [False, True]
    assert frames[0].json() == {"a": 1}
    assert END.is_end


def test_an_error_carries_the_fields_of_the_problem() -> None:
    body = (
        b'{"type": "urn:agent-runtime:problem:invalid_plan", "detail": "No.", "request_id": "r1", '
        b'"task_status": "failed", "errors": [{"field": "plan.steps[0]", "message": "has no id"}]}'
    )
    error = read_error("http://service", 422, "7", body)
    assert isinstance(error, clients.InvalidRequestError)
    assert (error.status, error.code, error.detail, error.retry_after) == (422, "invalid_plan", "No.", 7)
    assert (error.task_status, error.request_id) == ("failed", "r1")
    assert error.errors == (FieldError("plan.steps[0]", "has no id"),)
    assert str(error) == "The request was refused:\n  plan.steps[0]: has no id"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"detail": "x", "errors": 5}', b'{"detail": "x", "type": null']
)
def test_an_answer_of_something_else_is_an_error_too(body: bytes) -> None:
    error = read_error("http://service", 503, "Wed, 21 Oct 2026 07:28:00 GMT", body)
    assert isinstance(error, UnavailableError)
    assert "is it an Agent Runtime?" in str(error)
    assert error.retry_after is None


@pytest.mark.parametrize("task_id", ["", ".", "../tools", "a/b", "a?b", "a b", "x" * 101])
def test_an_id_that_no_task_has_changes_no_path(task_id: str) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(NotFoundError):
        client.get_task(task_id)


def test_a_pause_grows_and_respects_the_service_and_the_time_that_is_left() -> None:
    now = 0.0
    retries = Retries(10, timeout_s=30, clock=lambda: now)
    gone = ServiceUnreachableError("gone")
    assert [retries.pause_after(gone) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2]
    assert retries.pause_after(UnavailableError(503, "full", retry_after=5)) == 5
    now = 9
    assert retries.pause_after(UnavailableError(503, "full", retry_after=5)) == 1
    now = 10
    with pytest.raises(ServiceUnreachableError):
        retries.pause_after(gone)
    retries.restart()
    assert retries.pause_after(gone) == 0.1
    assert retries.silence_s() == 20
    now = 30
    with pytest.raises(TimeoutError, match="within 30 s"):
        retries.silence_s()


class ScriptedHandler(BaseHTTPRequestHandler):
    """Answers the requests of a script in order, and keeps what was asked. An empty answer closes the connection."""

    answers: ClassVar[list[tuple[int, bytes]]]
    asked: ClassVar[list[tuple[str | None, str | None]]]

    def do_GET(self) -> None:
        length = int(self.headers["Content-Length"] or 0)
        self.rfile.read(length)
        self.asked.append((self.headers["Last-Event-ID"], self.headers["Idempotency-Key"]))
        status, body = self.answers.pop(0)
        if not status:
            return
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the name of the base class

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve_answers(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[tuple[str | None, str | None]]]]:
    """Serve these answers. Yield the URL, and the list of what was asked."""
    members = {"answers": list(answers), "asked": []}
    handler = type("Handler", (ScriptedHandler,), members)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", members["asked"]  # type: ignore[misc] # the list of above
        finally:
            server.shutdown()
            thread.join(10)


CUT = (
    (200, b"id: 2.1\ndata: Planned\n\nevent: progress\ndata: {}\n\nid: 2.2\nda"),
    (503, b""),
    (0, b""),
    (200, b"id: 3.0\nevent: task.completed\ndata: {}\n\nid: 3.2\ndata: [DONE]\n\n"),
)


def test_a_stream_that_is_cut_goes_on_after_its_last_frame() -> None:
    with serve_answers(*CUT) as (url, asked), Client(url) as client:
        frames = [(frame.id, frame.event) for frame in client.follow("task_1")]
    assert frames == [("2.1", "message"), ("", "progress"), ("3.0", "task.completed")]
    assert [last for last, _ in asked] == [None, "2.1", "2.1", "2.1"]


async def test_a_stream_that_is_cut_goes_on_in_an_event_loop_too() -> None:
    with serve_answers(*CUT) as (url, asked):
        async with AsyncClient(url) as client:
            frames = [(frame.id, frame.event) async for frame in client.follow("task_1")]
    assert frames == [("2.1", "message"), ("", "progress"), ("3.0", "task.completed")]
    assert [last for last, _ in asked] == [None, "2.1", "2.1", "2.1"]


def test_a_task_whose_answer_is_lost_is_submitted_again_with_the_same_key() -> None:
    with serve_answers((0, b""), (202, b'{"task_id": "task_1"}')) as (url, asked), Client(url) as client:
        assert client.submit("add 1 and 2")["task_id"] == "task_1"
    keys = [key for _, key in asked]
    assert len(keys) == 2
    assert keys[0]
    assert keys[0] == keys[1]


def test_a_decision_whose_answer_is_lost_is_not_sent_again() -> None:
    with serve_answers((0, b"")) as (url, asked), Client(url) as client, pytest.raises(ServiceUnreachableError):
        client.approve("task_1")
    assert len(asked) == 1
