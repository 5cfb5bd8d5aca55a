"""G1-G3 and G10 with a real process: after SIGKILL between a call and its answer, no server process remains."""

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runtime.mcp_servers.sandbox import describe_level
from harness import House
from killing import Process, nothing_left_of, servers_of
from waiting import eventually_sync

ASKING_SERVER = Path(__file__).parents[1] / "servers" / "asking_server.py"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Process]:
    service = Process(House(tmp_path))
    try:
        yield service
    finally:
        service.close()


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["done", "retry", "skip", "fail"])
def test_a_kill_between_a_call_and_its_answer_asks_a_person_and_repeats_nothing(
    place: Process, resolution: str
) -> None:
    house = place.house
    house.write_registry(delay_s=60)
    place.start()
    task_id = place.submit_and_approve("one", "two")
    eventually_sync(lambda: house.counted == ["one"])
    place.end(signal.SIGKILL)

    house.write_registry()
    place.start()
    asking = place.until_settled(task_id)
    assert asking["status"] == "needs_attention"
    (attention,) = asking["attention"]
    assert (attention["kind"], attention["step_id"]) == ("outcome_unknown", "s1")
    assert house.counted == ["one"]

    place.resolve(task_id, "s1", resolution)
    ended = place.until_settled(task_id)
    expected = {
        "done": ("completed", ["one", "two"]),
        "retry": ("completed", ["one", "one", "two"]),
        "skip": ("completed", ["one"]),
        "fail": ("failed", ["one"]),
    }
    assert (ended["status"], house.counted) == expected[resolution]


@pytest.mark.slow
def test_a_kill_in_a_call_that_the_operator_called_idempotent_repeats_it_and_goes_on(place: Process) -> None:
    house = place.house
    house.write_registry(delay_s=60)
    place.start()
    task_id = place.submit_and_approve("one", "two", tool="look")
    eventually_sync(lambda: house.counted == ["one"])
    place.end(signal.SIGKILL)

    house.write_registry()
    place.start()
    assert place.until_settled(task_id)["status"] == "completed"
    assert house.counted == ["one", "one", "two"]


@pytest.mark.slow
@pytest.mark.parametrize(("idempotent", "status"), [(False, "outcome_unknown"), (True, "input")])
def test_a_kill_while_a_server_asks_something_loses_the_call_and_its_question(
    place: Process, *, idempotent: bool, status: str
) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(ASKING_SERVER)]}
    place.house.write_registry(config=config, tools={"*": {"effect": "read", "idempotent": idempotent}})
    place.start()
    task_id = place.submit_and_approve("one", tool="form")
    (asked,) = place.until_settled(task_id)["attention"]
    assert asked["kind"] == "input"
    place.end(signal.SIGKILL)

    place.start()
    eventually_sync(
        lambda: (
            [
                one["kind"]
                for one in place.task(task_id)["attention"]
                if one.get("question_id") != asked["question_id"]  # until the run is resumed, the old one is shown
            ]
            == [status]
        )
    )
    path = f"/v1/tasks/{task_id}/answers/{asked['question_id']}"
    assert place.client.post(path, json={"action": "decline"}).status_code == 404
    (withdrawn,) = [event for event in place.events(task_id) if event["type"] == "input.withdrawn"]
    assert withdrawn["data"]["reason"].startswith("the service stopped, or lost the call")


@pytest.mark.slow
def test_no_server_is_left_after_a_task_and_after_a_cancel(place: Process) -> None:
    place.house.write_registry(spares=0)
    place.start()
    task_id = place.submit_and_approve("one")
    assert place.until_settled(task_id)["status"] == "completed"
    nothing_left_of(place.house)

    place.house.write_registry(delay_s=60, spares=0)
    place.end(signal.SIGTERM)
    place.start()
    task_id = place.submit_and_approve("two")
    eventually_sync(lambda: "two" in place.house.counted)
    place.cancel(task_id)
    ended = place.until_settled(task_id)
    assert ended["status"] == "cancelled"
    nothing_left_of(place.house)


@pytest.mark.slow
def test_no_server_is_left_after_the_service_was_told_to_stop_in_the_middle_of_a_call(place: Process) -> None:
    place.house.write_registry(delay_s=60)
    place.start()
    place.submit_and_approve("one")
    eventually_sync(lambda: place.house.counted)
    began = time.monotonic()
    assert place.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 15
    nothing_left_of(place.house)


@pytest.mark.slow
@pytest.mark.skipif("bubblewrap" not in describe_level(), reason="NOT TESTED: bubblewrap does not work on this machine")
def test_with_bubblewrap_no_server_is_left_after_the_service_was_killed(place: Process) -> None:
    place.house.write_registry(delay_s=60)
    place.start()
    place.submit_and_approve("one")
    eventually_sync(lambda: place.house.counted)
    assert servers_of(place.house)
    place.end(signal.SIGKILL)
    nothing_left_of(place.house)


@pytest.mark.slow
def test_without_bubblewrap_the_server_itself_ends_with_a_killed_service(place: Process) -> None:
    place.house.write_registry(delay_s=60, sandbox={"mode": "off"})
    place.start()
    place.submit_and_approve("one")
    eventually_sync(lambda: place.house.counted)
    place.end(signal.SIGKILL)
    nothing_left_of(place.house)


@pytest.mark.slow
@pytest.mark.parametrize("sandbox", ["auto", "off"])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=["told to stop", "killed"])
def test_a_spare_that_waits_for_a_task_ends_with_the_service(
    place: Process, sent: signal.Signals, sandbox: str
) -> None:
    place.house.write_registry(sandbox={"mode": sandbox})
    place.start()
    task_id = place.submit_and_approve("one")
    assert place.until_settled(task_id)["status"] == "completed"
    spares = 'agent_runtime_mcp_spares{server="ledger"} 1.0'
    processes = 'agent_runtime_mcp_processes{server="ledger"} 0.0'

    def waits() -> bool:
        found = place.client.get("/metrics").text
        return spares in found and processes in found

    eventually_sync(waits)
    assert servers_of(place.house)
    place.end(sent)
    nothing_left_of(place.house)
