"""Tasks that begin at one replica through one door, and are decided and followed at another replica through another."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

from doors import DOORS, Door, Ending, open_doors
from node_servers import NODE
from serving import PATIENCE_S, Service, journal_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NAMES = [name for name in DOORS if NODE or name != "javascript"]
PROMPT, DONE = "Add 15 and 27", Ending("completed", "42", 1)


@pytest.fixture
def replicas(tmp_path: Path, postgres_url: str) -> Iterator[list[Service]]:
    """Two replicas on one database, each with its own data directory."""
    folders = [tmp_path / name for name in ("here", "there")]
    for folder in folders:
        folder.mkdir()
    shared: dict[str, Any] = {"storage": {"url": postgres_url}, "auth": {"mode": "anonymous"}}
    here, there = (Service(folder, **shared) for folder in folders)
    with here, there:
        yield [here, there]


@pytest.fixture
def doors(replicas: list[Service]) -> Iterator[list[dict[str, Door]]]:
    """All doors of each replica."""
    with open_doors(replicas[0], NAMES) as here, open_doors(replicas[1], NAMES) as there:
        yield [here, there]


def test_a_task_of_one_door_at_one_replica_is_decided_and_followed_by_others_at_another(
    doors: list[dict[str, Door]],
) -> None:
    here, there = doors
    deciding, following = (islice(cycle(NAMES), shift, None) for shift in (1, 2))
    for name, decider, follower in zip(NAMES, deciding, following, strict=False):
        task_id = here[name].submit(PROMPT)
        digest = there[decider].wait_for_plan(task_id)
        assert there[decider].decide(task_id, "approve", digest, lambda: None), (name, decider)
        shown = {
            (name, "here"): here[name].wait_for_end(task_id),
            (follower, "there"): there[follower].wait_for_end(task_id),
        }
        assert set(shown.values()) == {DONE}, (name, decider, shown)
        here, there = there, here


def test_of_doors_at_two_replicas_that_approve_at_once_one_wins(
    replicas: list[Service], doors: list[dict[str, Door]]
) -> None:
    spread = [doors[number % 2][name] for number, name in enumerate(NAMES)]
    task_id = doors[0]["rest"].submit(PROMPT)
    (digest,) = {door.wait_for_plan(task_id) for door in spread}
    gate = threading.Barrier(len(spread), timeout=PATIENCE_S)
    with ThreadPoolExecutor(len(spread)) as pool:
        approved = [pool.submit(door.decide, task_id, "approve", digest, gate.wait) for door in spread]
        won = [each.result(2 * PATIENCE_S) for each in approved]
    assert won.count(True) == 1, dict(zip(NAMES, won, strict=True))
    assert {door.wait_for_end(task_id) for door in spread} == {DONE}
    for replica in replicas:
        kinds = [event["type"] for event in journal_of(replica, task_id)]
        assert (kinds.count("plan.approved"), kinds.count("tool.called")) == (1, 1)


def test_states_and_threads_are_the_same_at_all_replicas(replicas: list[Service]) -> None:
    here, there = replicas
    place = "/v1/state/agent/thread-1"
    first = here.client.put(place, json={"draft": "a"})
    found = there.client.get(place)
    assert (found.json(), found.headers["etag"]) == ({"draft": "a"}, first.headers["etag"])
    condition = {"If-Match": first.headers["etag"]}
    assert there.client.put(place, json={"draft": "b"}, headers=condition).status_code == 200
    assert here.client.put(place, json={"draft": "c"}, headers=condition).status_code == 412
    assert here.get(place) == {"draft": "b"}
    task_id = here.submit(thread="thread-1")
    assert [task["task_id"] for task in there.get("/v1/tasks", thread="thread-1")["tasks"]] == [task_id]
