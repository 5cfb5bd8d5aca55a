"""G2 and G3 under load: two hundred SIGKILLs at random moments, with twenty concurrent tasks."""

import random
import signal
import threading
import time
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_runtime.domain.task import MOST_ATTEMPTS
from harness import House
from killing import Process
from waiting import eventually_sync

AT_ONCE = 20
KILLS = 200
LATEST_KILL_S = 1.5
"""A service makes its first call about a second after its start, once it has imported what runs servers."""
FIRST_CALL_S = 5.0
SETTLED_WITHIN_S = 30.0
STEPS = 3
TOOLS = ("count", "look")


class Users:
    """Users who submit and approve tasks while the service is killed. They record all acknowledged requests."""

    def __init__(self, service: Process) -> None:
        self.service = service
        self.submitted: dict[str, str] = {}
        self.approved: set[str] = set()
        self._under_way: set[str] = set()

    def fill_up(self, round_number: int) -> list[threading.Thread]:
        """Start concurrent submissions until twenty tasks are unfinished."""
        self._under_way = {task_id for task_id in self._under_way if not is_settled(self.service.task(task_id))}
        numbers = range(AT_ONCE - len(self._under_way))
        threads = [threading.Thread(target=self._one_more, args=(f"{round_number}-{number}",)) for number in numbers]
        for thread in threads:
            thread.start()
        return threads

    def _one_more(self, mark: str) -> None:
        tool = TOOLS[zlib.crc32(mark.encode()) % len(TOOLS)]
        try:
            task_id = self.service.submit(*(f"{mark}-{step}" for step in range(STEPS)), tool=tool)
            self.submitted[task_id] = tool
            self._under_way.add(task_id)
            self.service.approve(task_id)
            self.approved.add(task_id)
        except httpx2.TransportError:
            return  # killed in between; an unacknowledged request may be lost


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_hundred_kills_lose_nothing_acknowledged_and_repeat_nothing_in_silence(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.write_registry(delay_s=0.02)
    service, moments = Process(house), random.Random(20)  # noqa: S311  # repeatable, not secret
    users = Users(service)
    try:
        for round_number in range(KILLS):
            service.start()
            threads = users.fill_up(round_number)
            wait_for_the_moment(house, moments, near_a_call=bool(round_number % 2))
            service.end(signal.SIGKILL)
            for thread in threads:
                thread.join()
        assert_kept(service, house, users)
    finally:
        service.close()


def assert_kept(service: Process, house: House, users: Users) -> None:
    service.start()
    began = time.monotonic()
    waiting = [task_id for task_id in users.submitted if not is_at_rest(service.task(task_id))]
    eventually_sync(lambda: all(is_at_rest(service.task(task_id)) for task_id in waiting), SETTLED_WITHIN_S)
    assert time.monotonic() - began < SETTLED_WITHIN_S

    counted = Counter(house.counted)
    asking = 0
    for task_id, tool in users.submitted.items():
        task, events = service.task(task_id), service.events(task_id)
        called = Counter(event["data"]["step_id"] for event in events if event["type"] == "tool.called")
        returned = {event["data"]["step_id"] for event in events if event["type"] == "tool.returned"}
        labels = {step["id"]: step["arguments"]["label"] for step in task["plan_object"]["steps"]}
        if task_id not in users.approved:
            assert "plan.approved" in {event["type"] for event in events} or not called
        for step_id, label in labels.items():
            assert counted[label] <= called[step_id]
            assert counted[label] >= (step_id in returned)
            if tool == "count":
                assert called[step_id] <= 1
        if task["status"] == "needs_attention":
            asking += 1
            (question,) = task["attention"]
            assert question["step_id"] in set(called) - returned
            assert called[question["step_id"]] == (1 if tool == "count" else MOST_ATTEMPTS)
        elif task_id in users.approved:
            assert task["status"] == "completed"
            assert set(labels) == returned
    assert users.approved, "no approval was ever acknowledged"
    assert asking, "no kill came between a call and its answer"


def wait_for_the_moment(house: House, moments: random.Random, *, near_a_call: bool) -> None:
    """Wait for a random while. `near_a_call`: after the first call of this round, which a busy machine makes late."""
    before = len(house.counted)
    with suppress(AssertionError):
        if near_a_call:
            eventually_sync(lambda: len(house.counted) > before, FIRST_CALL_S)
    time.sleep(moments.uniform(0, 0.2 if near_a_call else LATEST_KILL_S))


def is_at_rest(task: dict[str, Any]) -> bool:
    """Return whether a task does nothing by itself. An approval that was not acknowledged may have come in time."""
    return is_settled(task) or task["status"] == "awaiting_approval"


def is_settled(task: dict[str, Any]) -> bool:
    return bool(task["terminal"]) or task["status"] == "needs_attention"
