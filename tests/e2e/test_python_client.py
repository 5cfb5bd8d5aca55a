"""The Python clients against a real service: each test runs with both."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from agent_runtime.client import (
    AsyncClient,
    Client,
    ConflictError,
    ForbiddenError,
    Frame,
    InvalidRequestError,
    KeyRefusedError,
    NotFoundError,
    ServiceUnreachableError,
    UnavailableError,
)
from callers import serve_with_keys
from command_line import ledger_call
from serving import PATIENCE_S, Service, free_port, sums
from slow_tools import slow_service

SERVERS = Path(__file__).parents[1] / "servers"
WRITE = {"id": "s1", "kind": "tool", "server": "filesystem", "tool": "write_file"}
KINDS = ["Client", "AsyncClient"]


class Driver:
    """Runs an `AsyncClient` in a loop of its own, with the methods of a `Client`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self._runner.run(getattr(self._client, name)(*args, **more))

    def follow(self, *args: Any, **more: Any) -> Iterator[Frame]:
        frames = self._client.follow(*args, **more)
        try:
            while True:
                yield self._runner.run(anext(frames))
        except StopAsyncIteration:
            return
        finally:
            self._runner.run(frames.aclose())


def make_client(kind: str, url: Any, key: str | None = None, **more: Any) -> Any:
    """Return a client, or a driver of one in an event loop."""
    return Client(url, key, **more) if kind == "Client" else Driver(AsyncClient(url, key, **more))


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, service: Service) -> Iterator[Any]:
    with make_client(request.param, service.url) as client:
        yield client


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_plan_is_approved_followed_and_has_its_result(client: Any) -> None:
    task_id = client.submit("Add up", plan=sums(2), metadata={"from": "a test"}, thread="client")["task_id"]
    assert client.list_tasks(thread="client")["tasks"][0]["task_id"] == task_id
    task = client.wait(task_id)
    assert (task["status"], task["metadata"]) == ("awaiting_approval", {"from": "a test"})
    assert client.approve(task_id, task["plan_digest"], comment="fine")["status"] == "approved"
    frames = list(client.follow(task_id))
    assert frames[0].event == "task.submitted"
    assert [frame.event for frame in frames].count("tool.returned") == 2
    assert any(frame.is_line and "Plan proposed" in frame.data for frame in frames)
    assert len({frame.id for frame in frames}) == len(frames)
    task = client.wait(task_id)
    assert (task["status"], task["result"]) == ("completed", "42")
    assert [frame.id for frame in client.follow(task_id, frames[3].id)] == [frame.id for frame in frames[4:]]
    assert list(client.follow(task_id, frames[-1].id)) == []


def test_what_is_refused_is_a_typed_error_with_every_field(client: Any) -> None:
    with pytest.raises(InvalidRequestError) as invalid:
        client.submit("Add", plan={"goal": "none", "steps": []})
    assert (invalid.value.status, invalid.value.code) == (422, "invalid_plan")
    assert invalid.value.errors[0].field.startswith("plan.")
    assert invalid.value.request_id
    with pytest.raises(NotFoundError) as missing:
        client.get_task("task_0")
    assert (missing.value.code, missing.value.retry_after) == ("task_not_found", None)
    task_id = client.submit("Add", plan=sums(1))["task_id"]
    with pytest.raises(ConflictError) as outdated:
        client.approve(task_id, "sha256:other")
    assert outdated.value.code == "digest_mismatch"
    assert client.reject(task_id, reason="no")["status"] == "rejected"
    with pytest.raises(ConflictError) as late:
        client.approve(task_id)
    assert (late.value.code, late.value.task_status) == ("decision_refused", "rejected")


@pytest.mark.slow
def test_every_verb_does_what_it_says(client: Any) -> None:
    task_id = client.submit("Add", plan=sums(1))["task_id"]
    digest = client.get_task(task_id)["plan_digest"]
    assert client.submit("Add", plan=sums(1), idempotency_key=f"{task_id}-a") == client.submit(
        "Add", plan=sums(1), idempotency_key=f"{task_id}-a"
    )
    edited = client.edit(task_id, sums(2), digest)
    assert edited["plan_revision"] == 2
    assert "s2" in client.compare_revisions(task_id, 1, 2)["text"]
    assert client.cancel(task_id, reason="enough")["status"] == "cancelled"
    again = client.rerun(task_id)["task_id"]
    assert client.wait(again)["rerun_of"]["task_id"] == task_id
    client.approve(again)
    assert client.wait(again)["result"] == "42"
    assert client.list_events(again, after=1, limit=1)["next_after"] == 2
    assert client.export_audit(again)["calls"][0]["tool"] == "evaluate"
    assert client.list_planning_attempts(again)["attempts"] == []
    page = client.list_tasks("completed", limit=1)
    assert page["tasks"][0]["task_id"] == again
    assert client.list_tasks(cursor=page["next_cursor"])["tasks"]
    client.delete_task(again)
    with pytest.raises(NotFoundError):
        client.wait(again)
    planned = client.submit("Add 15 and 27")["task_id"]
    assert client.wait(planned)["status"] == "awaiting_approval"
    assert client.revise(planned, "Add 15 and 28 instead")["status"] == "pending"
    assert client.wait(planned)["status"] in {"awaiting_approval", "failed"}
    assert any(tool["tool"] == "evaluate" for tool in client.list_tools(refresh=True))
    assert {server["id"] for server in client.list_servers()} == {"filesystem", "calculator", "unused"}
    assert client.reload_tools() == {"added": [], "changed": [], "removed": []}
    client.check_ready()


@pytest.mark.slow
def test_a_call_is_shown_and_denied_or_approved(kind: str, tmp_path: Path) -> None:
    service = Service(tmp_path)
    config = {"server": "filesystem", "root": "files"}
    entry = {"id": "filesystem", "type": "builtin", "config": config, "tools": {"write_file": {"approval": "call"}}}
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [entry]}), encoding="utf-8")
    with service, make_client(kind, service.url) as client:
        for verb, status in (("deny_call", "failed"), ("approve_call", "completed")):
            plan = {"goal": "Write", "steps": [WRITE | {"arguments": {"path": f"{verb}.txt", "content": "x"}}]}
            task_id = client.submit("Write", plan=plan)["task_id"]
            client.approve(task_id)
            (asked,) = client.wait(task_id)["attention"]
            assert asked["arguments"]["path"] == f"{verb}.txt"
            edited = {"edited_arguments": {"path": "edited.txt", "content": "x"}} if verb == "approve_call" else {}
            getattr(client, verb)(task_id, asked["call_id"], asked["arguments_digest"], comment="seen", **edited)
            assert client.wait(task_id)["status"] == status
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["edited.txt"]


@pytest.mark.slow
def test_a_question_of_a_server_is_answered(kind: str, tmp_path: Path) -> None:
    service = Service(tmp_path)
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    asking = {"id": "asking", "type": "local_stdio", "config": config, "tools": {"*": {"effect": "read"}}}
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [asking]}), encoding="utf-8")
    step = {"id": "s1", "kind": "tool", "server": "asking", "tool": "form"}
    with service, make_client(kind, service.url) as client:
        task_id = client.submit("Ask", plan={"goal": "Ask", "steps": [step]})["task_id"]
        client.approve(task_id)
        (asked,) = client.wait(task_id)["attention"]
        assert asked["kind"] == "input"
        client.answer(task_id, asked["question_id"], {"name": "Ann"})
        task = client.wait(task_id)
    assert task["status"] == "completed"
    assert "Ann" in task["result"]


@pytest.mark.slow
def test_a_task_that_runs_is_cancelled(kind: str, tmp_path: Path) -> None:
    with slow_service(tmp_path, 30) as service, make_client(kind, service.url) as client:
        task_id = client.submit("Look", plan=ledger_call("look"))["task_id"]
        client.approve(task_id)
        for frame in client.follow(task_id):
            if frame.event == "tool.called":
                break
        with pytest.raises(TimeoutError):
            client.wait(task_id, timeout_s=0.5)
        client.cancel(task_id)
        assert client.wait(task_id)["status"] == "cancelled"


@pytest.mark.slow
def test_a_failed_task_has_its_error(client: Any) -> None:
    missing = {"id": "s1", "kind": "tool", "server": "filesystem", "tool": "read_file", "arguments": {"path": "no.txt"}}
    task_id = client.submit("Read", plan={"goal": "Read", "steps": [missing]})["task_id"]
    client.approve(task_id)
    task = client.wait(task_id)
    assert (task["status"], task["error"]["code"], task["error"]["step_id"]) == ("failed", "tool_error", "s1")


@pytest.mark.slow
@pytest.mark.parametrize("moves", [False, True])
def test_every_frame_comes_once_over_a_restart_of_the_service(kind: str, tmp_path: Path, *, moves: bool) -> None:
    service = slow_service(tmp_path, 1, port=0 if moves else free_port())
    with service:
        address: Any = (lambda: service.url) if moves else f"{service.url}/"
        with make_client(kind, address) as client:
            task_id = client.submit("Look", plan=ledger_call("look"))["task_id"]
            client.approve(task_id)
            frames = []
            restarting = None
            for frame in client.follow(task_id):
                frames.append(frame)
                if frame.event == "tool.called" and restarting is None:
                    restarting = threading.Thread(target=service.restart)
                    restarting.start()
            assert restarting
            restarting.join(PATIENCE_S)
            events = [frame.event for frame in frames if not frame.is_line]
            assert events.count("task.claimed") == 2
            assert events.count("tool.returned") == 1
            assert [frame.id for frame in frames if frame.id] == [frame.id for frame in client.follow(task_id)]
            assert client.wait(task_id)["status"] == "completed"


@pytest.mark.slow
def test_too_many_streams_are_waited_for(kind: str, tmp_path: Path) -> None:
    with Service(tmp_path, limits={"stream_clients": 1}) as service, make_client(kind, service.url) as client:
        task_id = service.submit(plan=sums(1))
        with make_client(kind, service.url, away_s=0.2) as hasty, service.stream(task_id):
            with pytest.raises(UnavailableError) as full:
                next(hasty.follow(task_id))
            assert (full.value.code, full.value.retry_after) == ("too_many_streams", 2)
        service.approve(task_id)
        assert client.wait(task_id)["result"] == "41"


@pytest.mark.slow
def test_a_key_is_needed_that_may_do_it(kind: str, tmp_path: Path) -> None:
    with serve_with_keys(tmp_path) as house:
        with make_client(kind, house.service.url, "ar_wrong") as wrong, pytest.raises(KeyRefusedError) as refused:
            wrong.list_tasks()
        assert (refused.value.status, refused.value.code) == (401, "key_invalid")
        with make_client(kind, house.service.url, house.keys["read"]) as reader:
            assert reader.list_tasks()["tasks"] == []
            with pytest.raises(ForbiddenError) as forbidden:
                reader.submit("Add 1 and 2")
            assert forbidden.value.code == "scope_missing"
            with pytest.raises(NotFoundError):
                next(reader.follow("task_0"))


@pytest.mark.slow
def test_a_service_that_is_away_is_named_after_the_patience_is_over(kind: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with make_client(kind, url, away_s=0.3) as client:
        for call in (client.list_tasks, lambda: client.submit("Add"), lambda: list(client.follow("task_0"))):
            with pytest.raises(ServiceUnreachableError, match=url):
                call()
        began = time.monotonic()
        with pytest.raises(ServiceUnreachableError):
            client.wait("task_0")
        assert time.monotonic() - began >= 0.3
    with make_client(kind, lambda: None) as client, pytest.raises(ServiceUnreachableError, match="start it again"):
        client.list_tasks()


@pytest.mark.slow
def test_threads_share_a_client(service: Service) -> None:
    ids: list[str] = []
    with Client(service.url) as client:

        def run() -> None:
            task_id = client.submit("Add", plan=sums(1))["task_id"]
            client.approve(task_id)
            assert client.wait(task_id)["result"] == "41"
            ids.append(task_id)

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert len(set(ids)) == 8


@pytest.mark.slow
async def test_many_tasks_are_awaited_at_once_in_one_loop(service: Service) -> None:
    async with AsyncClient(service.url) as client:

        async def run() -> str | None:
            task_id = (await client.submit("Add", plan=sums(1)))["task_id"]
            await client.approve(task_id)
            return (await client.wait(task_id))["result"]

        async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as group:
            tasks = [group.create_task(run()) for _ in range(50)]
    assert [task.result() for task in tasks] == ["41"] * 50
