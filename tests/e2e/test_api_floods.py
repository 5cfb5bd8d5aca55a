"""Bodies that take long to judge hold up nobody else (G9, G11, G13)."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from command_line import Folder, Serving
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
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Folder(tmp_path_factory.mktemp("flooded")).serving() as serving:
        yield serving


@pytest.mark.slow
@pytest.mark.parametrize("what", LONG)
def test_while_long_bodies_are_judged_everybody_else_is_answered(serving: Serving, what: str) -> None:
    """Of the health checks meanwhile 95 % take less than a second."""
    over = threading.Event()

    def ask() -> list[float]:
        taken: list[float] = []
        while not over.is_set():
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            taken.append(time.monotonic() - began)
        return taken

    def send(_: int) -> set[int]:
        headers = {"Content-Type": "application/json"}
        answers = (client.post("/v1/tasks", content=LONG[what], headers=headers) for _ in range(BODIES_OF_EACH))
        return {answer.status_code for answer in answers}

    with httpx2.Client(base_url=serving.url, timeout=120) as client, ThreadPoolExecutor(CLIENTS + 1) as pool:
        asking = pool.submit(ask)
        try:
            statuses = set.union(*pool.map(send, range(CLIENTS)))
        finally:
            over.set()
        taken = sorted(asking.result())
    assert statuses == {422}
    assert len(taken) > 10
    assert taken[int(len(taken) * 0.95)] < 1
