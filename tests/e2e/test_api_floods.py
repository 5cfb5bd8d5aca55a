"""Requests with large bodies, and requests for large tasks, do not delay other clients (G9, G11, G13)."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from command_line import Folder, ServiceProcess
from pools import HOSTILE_SERVER
from serving import sums

CLIENTS = 8
BODIES_OF_EACH = 2
STEP = sums(1)["steps"][0]


def _task(**step: object) -> bytes:
    return json.dumps({"prompt": "x", "plan": {"steps": [{**STEP, **step}]}}).encode()


LONG: dict[str, bytes] = {
    "unknown fields": json.dumps({"prompt": "x", **{f"field{number}": 1 for number in range(60_000)}}).encode(),
    "unknown fields of a plan": _task(**{f"field{number}": 1 for number in range(60_000)}),
    "faults of a list": _task(depends_on=[1] * 300_000),
    "faults of a map": json.dumps({"prompt": "x", "metadata": {f"k{number}": 1 for number in range(70_000)}}).encode(),
    "steps that are none": json.dumps({"prompt": "x", "plan": {"steps": [{}] * 250_000}}).encode(),
    "arguments that are wrong": _task(arguments={"expression": [0.1 + number for number in range(50_000)]}),
    "arguments that the tool does not have": _task(
        arguments={"expression": "1", "more": [0.1 + n for n in range(50_000)]}
    ),
    "references": _task(arguments={"expression": "${s1.text}" * 20_000}),
}


@pytest.fixture(scope="module")
def flooded_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with Folder(tmp_path_factory.mktemp("flooded")).serve() as flooded_service:
        yield flooded_service


def expect_prompt_health(client: httpx2.Client, send: Callable[[], set[int]]) -> set[int]:
    """Send requests from many clients at once, and return their statuses.

    Meanwhile 95 % of the health checks must take less than a second.
    """
    over = threading.Event()

    def ask() -> list[float]:
        taken: list[float] = []
        while not over.is_set():
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            taken.append(time.monotonic() - began)
        return taken

    with ThreadPoolExecutor(CLIENTS + 1) as pool:
        asking = pool.submit(ask)
        try:
            sent = [pool.submit(send) for _ in range(CLIENTS)]
            statuses = set.union(*(one.result() for one in sent))
        finally:
            over.set()
        taken = sorted(asking.result())
    assert len(taken) > 10
    assert taken[int(len(taken) * 0.95)] < 1
    return statuses


@pytest.mark.slow
@pytest.mark.parametrize("what", LONG)
def test_while_long_bodies_are_judged_everybody_else_is_answered(flooded_service: ServiceProcess, what: str) -> None:
    def send() -> set[int]:
        headers = {"Content-Type": "application/json"}
        answers = (client.post("/v1/tasks", content=LONG[what], headers=headers) for _ in range(BODIES_OF_EACH))
        return {answer.status_code for answer in answers}

    with httpx2.Client(base_url=flooded_service.url, timeout=120) as client:
        assert expect_prompt_health(client, send) == {422}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["", "/plan/diff?from=1&to=2"])
def test_while_large_tasks_are_shown_everybody_else_is_answered(
    large_task: tuple[httpx2.Client, str], path: str
) -> None:
    client, task_url = large_task
    assert expect_prompt_health(client, lambda: {client.get(f"{task_url}{path}").status_code}) == {200}


@pytest.fixture(scope="module")
def large_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx2.Client, str]]:
    """A client, and the path of a task with a plan of about 800 KB that was edited once."""
    folder = Folder(tmp_path_factory.mktemp("large"))
    config = {"command": sys.executable, "args": ["-S", "-E", str(HOSTILE_SERVER), "polite"]}
    folder.write_registry({"id": "hostile", "type": "local_stdio", "config": config})
    arguments = {f"é{number}": {"a": number} for number in range(500)}
    step = {"kind": "tool", "server": "hostile", "tool": "echo", "arguments": arguments}
    plan = {"steps": [{**step, "id": f"s{number}"} for number in range(100)]}
    with folder.serve() as serving, httpx2.Client(base_url=serving.url, timeout=120) as client:
        task_id = client.post("/v1/tasks", json={"prompt": "x", "plan": plan, "max_steps": 100}).json()["task_id"]
        task_url = f"/v1/tasks/{task_id}"
        edited = {"steps": [{**step, "id": f"t{number}"} for number in range(100)]}
        tag = client.get(task_url).headers["ETag"]
        assert client.put(f"{task_url}/plan", json=edited, headers={"If-Match": tag}).status_code == 200
        yield client, task_url
