"""A service process that plans and acts with a model server, from the view of its clients and operators."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest

from command_line import LEDGER_SERVER, PATIENCE_S, Folder, ServiceProcess
from model_server import ModelServer
from model_server.replies import Answer, Calls, Fault, FaultKind, Rule, Text
from model_server.requests import Request, WireError
from serving import frames_of

PROMPT = "Say hello in a file"
WRITE = {
    "id": "s1",
    "title": "Write it",
    "kind": "tool",
    "server": "filesystem",
    "tool": "write_file",
    "arguments": {"path": "a.txt", "content": "hello"},
}
PLAN = json.dumps({"goal": "Say hello", "steps": [WRITE]})
LABELS = ["one", "two", "three", "four"]
KEY = "sk-planted-5f3a9c17e2"
PASSWORD = "hunter22"  # noqa: S105 - planted


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, models: ModelServer) -> Folder:
    """A folder whose model is the test server, with one retry and short timeouts."""
    folder = Folder(tmp_path)
    folder.env["OPENAI_BASE_URL"] = models.base_url
    set_model(folder, model="test-model", timeout_s="1", max_retries="1")
    return folder


def set_model(folder: Folder, **settings: str) -> None:
    folder.env["AGENT_RUNTIME_LIMITS__PLANNING_OUTAGE_S"] = "0"
    folder.env |= {f"AGENT_RUNTIME_OPENAI__{name.upper()}": value for name, value in settings.items()}


class Customer:
    """A client that fails the test if the service refuses a request."""

    def __init__(self, service: ServiceProcess) -> None:
        self.http = httpx2.Client(base_url=service.url, timeout=PATIENCE_S)
        self.seen: list[str] = []

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        response = self.http.request(method, path, json=body)
        self.seen.append(response.text)
        assert response.status_code < 300, response.text
        return response.json()

    def submit(self, plan: Any = None) -> str:
        return str(self.ask("POST", "/v1/tasks", {"prompt": PROMPT, "plan": plan})["task_id"])

    def task(self, task_id: str) -> Any:
        return self.ask("GET", f"/v1/tasks/{task_id}")

    def approve(self, task_id: str) -> None:
        self.ask("POST", f"/v1/tasks/{task_id}/approve")

    @contextmanager
    def stream(self, task_id: str, **query: str) -> Iterator[Iterator[tuple[str, str, str]]]:
        """Open the stream of a task, and yield its frames as (event, id, data)."""
        with self.http.stream("GET", f"/v1/tasks/{task_id}/stream", params=query) as response:
            yield frames_of(response)

    def until_settled(self, task_id: str) -> Any:
        """Wait until the task has ended or waits for a person, and return it."""
        with self.stream(task_id, view="events") as frames:
            for event, frame_id, data in frames:
                self.seen.append(data)
                if event in {"plan.proposed", "step.outcome_unknown"}:
                    task = self.task(task_id)
                    later = self.ask("GET", f"/v1/tasks/{task_id}/events?after={frame_id.partition('.')[0]}&limit=1")
                    if task["status"] in {"awaiting_approval", "needs_attention"} and not later["events"]:
                        return task
        return self.task(task_id)

    def submit_and_wait(self) -> Any:
        return self.until_settled(self.submit())


@contextmanager
def customer_of(service: ServiceProcess) -> Iterator[Customer]:
    customer = Customer(service)
    try:
        yield customer
    finally:
        customer.http.close()


def until(frames: Iterator[tuple[str, str, str]], event: str, beginning: str = "") -> list[tuple[str, str, str]]:
    """Return the frames up to the first one with this event whose data begins with this text."""
    found = []
    for frame in frames:
        found.append(frame)
        if frame[0] == event and frame[2].startswith(beginning):
            return found
    raise AssertionError(f"there was no {event}: {found}")


@pytest.mark.slow
@pytest.mark.parametrize("api", ["responses", "chat_completions"])
def test_a_plan_is_seen_while_it_is_written_and_once(folder: Folder, models: ModelServer, api: str) -> None:
    set_model(folder, api=api, timeout_s="20")
    listened = threading.Event()

    async def half_of_it(_: Request) -> Answer:
        assert await asyncio.to_thread(listened.wait, PATIENCE_S)
        return Fault("stall_stream", PLAN)

    models.on(PROMPT, half_of_it)
    with folder.serve() as service, customer_of(service) as customer:
        task_id = customer.submit()
        with customer.stream(task_id) as frames, customer.stream(task_id, view="log") as lines:
            heard = until(frames, "task.submitted")
            read = until(lines, "message", "Submitted")
            listened.set()
            heard += until(frames, "progress")
            assert customer.task(task_id)["plan_object"] is None
            models.release()
            heard += until(frames, "message", "Plan proposed")
            read += until(lines, "message", "Plan proposed")
            last = heard[-1][1]
            with customer.stream(task_id, after=last) as again, customer.stream(task_id) as anew:
                repeated = until(anew, "message", "Plan proposed")
                customer.approve(task_id)
                rest = list(again)
        task = customer.task(task_id)
    written = [(frame_id, json.loads(data)) for event, frame_id, data in heard if event == "progress"]
    assert all(frame_id == "" for frame_id, _ in written)
    assert all((said["task_id"], said["step_id"]) == (task_id, None) for _, said in written)
    assert "".join(said["text"] for _, said in written) == PLAN
    assert {event for event, _, _ in read} == {"message"}
    assert "progress" not in {event for event, _, _ in repeated + rest}
    assert (task["status"], (folder.files / "a.txt").read_text(encoding="utf-8")) == ("completed", "hello")


@pytest.mark.slow
def test_the_service_answers_while_the_first_question_imports_the_library(folder: Folder, models: ModelServer) -> None:
    models.on(PROMPT, Text(PLAN))
    folder.env["PYTHONPROFILEIMPORTTIME"] = "1"
    slowest = 0.0
    asked = 0
    with folder.serve() as service, customer_of(service) as customer:
        assert not find_imports(service.log), "it is imported before it is needed"
        task_id = customer.submit()
        submitted = time.monotonic()
        status = ""
        while status != "awaiting_approval":
            began = time.monotonic()
            assert began < submitted + PATIENCE_S
            customer.ask("GET", "/healthz")
            status = customer.task(task_id)["status"]
            slowest = max(slowest, time.monotonic() - began)
            asked += 1
        took = time.monotonic() - submitted
    assert find_imports(service.log), "this does not tell when it is imported"
    assert asked > 2
    assert slowest < 1
    assert slowest < took / 2, "it stood still meanwhile, on a machine that is quick enough to hide it"


def find_imports(log: str) -> list[str]:
    """Return the model libraries that the interpreter imported, according to its import log."""
    names = (line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:"))
    return [name for name in names if name.partition(".")[0] in {"agents", "openai"}]


@pytest.mark.slow
def test_without_a_model_nothing_of_its_libraries_is_imported(folder: Folder) -> None:
    del folder.env["OPENAI_BASE_URL"]
    folder.env["PYTHONPROFILEIMPORTTIME"] = "1"
    with folder.serve() as service, customer_of(service) as customer:
        task_id = str(customer.ask("POST", "/v1/tasks", {"prompt": "Add 15 and 27"})["task_id"])
        assert customer.until_settled(task_id)["status"] == "awaiting_approval"
        customer.approve(task_id)
        assert customer.until_settled(task_id)["result"] == "42"
        customer.http.get("/v1/models/status")
    assert "import time:" in service.log
    assert not find_imports(service.log)


@pytest.mark.slow
def test_a_model_that_fails_is_asked_again_or_is_a_clear_error_of_its_task(folder: Folder, models: ModelServer) -> None:
    set_model(folder, timeout_s="0.5")
    models.on(PROMPT, Text(PLAN))
    with folder.serve() as service, customer_of(service) as customer:
        models.next(Fault("rate_limited", retry_after=0))
        assert customer.submit_and_wait()["status"] == "awaiting_approval"
        models.next(Fault("cut_stream", PLAN))
        assert customer.submit_and_wait()["status"] == "awaiting_approval"
        models.next(Fault("hang"), Fault("hang"))
        task = customer.submit_and_wait()
        assert (task["status"], task["error"]["code"]) == ("failed", "model_unreachable")
        assert customer.submit_and_wait()["status"] == "awaiting_approval"


@pytest.mark.slow
@pytest.mark.parametrize("api", ["responses", "chat_completions"])
@pytest.mark.timeout(180)
def test_no_fault_is_a_fault_of_the_service(folder: Folder, models: ModelServer, api: str) -> None:
    set_model(folder, api=api)
    with folder.serve() as service, customer_of(service) as customer:
        for kind in get_args(FaultKind):
            fault = Fault(kind, PLAN, retry_after=0, delay_s=2, size=3_000_000)
            for then in (Text(PLAN), fault):
                models.script([Rule(PROMPT, (fault, then))])
                task = customer.submit_and_wait()
                if task["status"] != "awaiting_approval":
                    assert task["status"] == "failed", kind
                    assert task["error"]["code"].startswith("model_"), kind
                    assert len(task["error"]["message"]) > len("It failed."), kind
                models.script([Rule(PROMPT, (Text(PLAN),))])
                assert customer.submit_and_wait()["status"] == "awaiting_approval", kind
    assert "Traceback" not in service.log


@pytest.mark.slow
def test_a_refused_key_is_told_and_shown_nowhere(folder: Folder, models: ModelServer) -> None:
    def refuse(request: Request) -> Answer:
        """Refuse the key, and repeat it in the error, as some endpoints do."""
        given = request.headers["authorization"].removeprefix("Bearer ")
        if request.index == 0:
            raise WireError(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")
        raise WireError(500, f"The account of {given} cannot be found.")

    folder.env["OPENAI_API_KEY"] = KEY
    folder.env["AGENT_RUNTIME_LOG__LEVEL"] = "debug"
    folder.env["AGENT_RUNTIME_LIMITS__PLANNING_OUTAGE_S"] = "0"
    models.on("", refuse)
    with folder.serve() as service, customer_of(service) as customer:
        task, other = customer.submit_and_wait(), customer.submit_and_wait()
        task_id = task["task_id"]
        for path in ("", "/events", "/audit"):
            customer.ask("GET", f"/v1/tasks/{task_id}{path}")
        for path in ("/v1/models/status", "/readyz", "/metrics"):
            customer.seen.append(customer.http.get(path).text)
        with customer.stream(task_id) as frames:
            customer.seen += chain.from_iterable(frames)
        shown = folder("show", task_id)
        customer.seen += [shown.stdout, shown.stderr]
        kept = b"".join(file.read_bytes() for file in (folder.path / "data").rglob("*") if file.is_file())
    assert (task["status"], task["error"]["code"]) == ("failed", "model_key_refused")
    assert other["error"]["code"] == "model_overloaded"
    assert "The account of [redacted]" in other["error"]["message"]
    assert models.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in "".join(customer.seen)
    assert KEY not in service.log
    assert task_id.encode() in kept
    assert KEY.encode() not in kept


@pytest.mark.slow
def test_a_password_in_the_address_of_the_model_is_shown_nowhere(folder: Folder, models: ModelServer) -> None:
    def repeat(request: Request) -> Answer:
        raise WireError(400, f"You sent {request.headers['authorization']} and {PASSWORD}.")

    folder.env["OPENAI_BASE_URL"] = models.base_url.replace("://", f"://someone:{PASSWORD}@")
    folder.env["AGENT_RUNTIME_LOG__LEVEL"] = "debug"
    models.on("", repeat)
    with folder.serve() as service, customer_of(service) as customer:
        task = customer.submit_and_wait()
    assert "You sent Basic [redacted] and [redacted]." in task["error"]["message"]
    assert PASSWORD not in "".join(customer.seen)
    assert PASSWORD not in service.log
    assert f"http://[redacted]@127.0.0.1:{models.port}" in service.log, "the libraries are heard at this level"


def write_ledgers(folder: Folder, delay_s: float) -> None:
    """Register two servers with one ledger: `quick` answers at once, `slow` after a delay."""
    folder.write_registry(
        *(
            {
                "id": name,
                "type": "local_stdio",
                "config": {
                    "command": sys.executable,
                    "args": ["-S", "-E", str(LEDGER_SERVER)],
                    "env": {"LEDGER": str(folder.ledger), "DELAY_S": str(seconds)},
                },
                "tools": {"*": {"open_world": False}},
            }
            for name, seconds in (("quick", 0.0), ("slow", delay_s))
        )
    )


def counting_plan(*servers: str) -> dict[str, Any]:
    tools = [{"server": server, "tool": "count", "max_calls": 4} for server in servers]
    step = {"id": "do", "kind": "agent", "instruction": "Count.", "tools": tools, "preapproved": True}
    return {"goal": "Count", "steps": [step]}


@pytest.mark.slow
def test_a_kill_in_the_middle_of_four_calls_repeats_none_and_asks_about_one(
    folder: Folder, models: ModelServer
) -> None:
    write_ledgers(folder, delay_s=30)
    slow = "slow__count"
    wanted = [("quick__count", {"label": label}) for label in LABELS]
    wanted[2] = (slow, {"label": LABELS[2]})
    models.on(lambda request: request.turn == 0, Calls(wanted))
    models.on(lambda request: request.turn == 1, Text("All four."))
    with folder.serve() as service, customer_of(service) as customer:
        task_id = customer.submit(counting_plan("quick", "slow"))
        customer.approve(task_id)
        with customer.stream(task_id, view="events") as frames:
            for event, _, data in frames:
                if event == "tool.called" and json.loads(data)["data"]["server"] == "slow":
                    break
        wait_until_counted(folder, LABELS[2])
        service.process.kill()
        service.process.wait(PATIENCE_S)
    with folder.serve() as service, customer_of(service) as customer:
        task = customer.until_settled(task_id)
        assert task["status"] == "needs_attention"
        (asked,) = task["attention"]
        assert (asked["server"], asked["tool"]) == ("slow", "count")
        decision = {"step_id": "do", "resolution": "done", "output": "counted three"}
        customer.ask("POST", f"/v1/tasks/{task_id}/resolve", decision)
        task = wait_for_end(customer, task_id)
    assert (task["status"], task["result"]) == ("completed", "All four.")
    assert sorted(read_ledger(folder)) == sorted(LABELS)
    assert [request.turn for request in models.requests] == [0, 1]


@pytest.mark.slow
def test_a_kill_while_the_model_is_asked_asks_that_again_and_nothing_before(
    folder: Folder, models: ModelServer
) -> None:
    set_model(folder, timeout_s="20")
    write_ledgers(folder, delay_s=0)
    models.on(lambda request: request.turn == 0, Calls([("quick__count", {"label": label}) for label in LABELS]))
    models.on(lambda request: request.turn == 1, Fault("hang"), Text("All four."))
    with folder.serve() as service, customer_of(service) as customer:
        task_id = customer.submit(counting_plan("quick"))
        customer.approve(task_id)
        models.wait_for_requests(2)
        service.process.kill()
        service.process.wait(PATIENCE_S)
    with folder.serve() as service, customer_of(service) as customer:
        task = wait_for_end(customer, task_id)
    assert (task["status"], task["result"]) == ("completed", "All four.")
    assert sorted(read_ledger(folder)) == sorted(LABELS)
    assert [request.turn for request in models.requests] == [0, 1, 1]
    assert models.requests[1].results == models.requests[2].results


def read_ledger(folder: Folder) -> list[str]:
    return folder.ledger.read_text(encoding="utf-8").split() if folder.ledger.exists() else []


def wait_until_counted(folder: Folder, label: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while label not in read_ledger(folder):
        assert time.monotonic() < deadline, read_ledger(folder)


def wait_for_end(customer: Customer, task_id: str) -> Any:
    with customer.stream(task_id, view="log") as frames:
        until(frames, "message", "[DONE]")
    return customer.task(task_id)
