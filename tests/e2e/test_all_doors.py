"""One task through all doors: what one does all show, and of two that decide at once one is told (N7)."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from doors import DOORS, Door, Ending, open_doors
from node_servers import NODE
from serving import PATIENCE_S, Service, journal_of

pytestmark = pytest.mark.slow

NAMES = [name for name in DOORS if NODE or name != "javascript"]

WAYS = {
    "completed": ("Add 15 and 27", "approve", Ending("completed", "42", 1)),
    "failed": ("calculate 1 / 0", "approve", None),
    "rejected": ("Add 15 and 27", "reject", Ending("rejected", None, 0)),
    "cancelled": ("Add 15 and 27", "cancel", Ending("cancelled", None, 0)),
}
"""How a task goes: its prompt, the decision, and its ending."""


@pytest.fixture(scope="module")
def doors(service: Service) -> Iterator[dict[str, Door]]:
    with open_doors(service, NAMES) as doors:
        yield doors


def open_door(doors: dict[str, Door], name: str) -> Door:
    if name not in doors:
        pytest.skip("NOT TESTED: the JavaScript client needs node, and this machine has none")
    return doors[name]


@pytest.mark.parametrize("name", DOORS)
def test_a_task_goes_every_way_through_a_door_and_rest_shows_the_same(doors: dict[str, Door], name: str) -> None:
    door, rest = open_door(doors, name), doors["rest"]
    for status, (prompt, decision, ending) in WAYS.items():
        task_id = door.submit(prompt)
        digest = door.wait_for_plan(task_id)
        assert digest == rest.wait_for_plan(task_id)
        assert door.decide(task_id, decision, digest, lambda: None)
        shown = door.wait_for_end(task_id)
        assert shown == rest.wait_for_end(task_id)
        assert shown.status == status
        assert ending in {None, shown}
        assert shown.said or not shown.calls


@pytest.mark.parametrize("name", DOORS)
def test_a_door_that_comes_too_late_is_told_and_changes_nothing(doors: dict[str, Door], name: str) -> None:
    door, rest = open_door(doors, name), doors["rest"]
    task_id = rest.submit("Add 15 and 27")
    digest = rest.wait_for_plan(task_id)

    def overtake() -> None:
        assert rest.decide(task_id, "reject", digest, lambda: None)

    assert not door.decide(task_id, "approve", digest, overtake)
    assert door.wait_for_end(task_id) == Ending("rejected", None, 0)


def test_of_doors_that_approve_at_once_one_wins_and_the_others_are_told(
    service: Service, doors: dict[str, Door]
) -> None:
    for _ in range(2):
        task_id = doors["rest"].submit("Add 15 and 27")
        (digest,) = {door.wait_for_plan(task_id) for door in doors.values()}
        gate = threading.Barrier(len(doors), timeout=PATIENCE_S)
        with ThreadPoolExecutor(len(doors)) as pool:
            approved = [pool.submit(door.decide, task_id, "approve", digest, gate.wait) for door in doors.values()]
            won = [each.result(2 * PATIENCE_S) for each in approved]
        assert won.count(True) == 1, dict(zip(doors, won, strict=True))
        assert {door.wait_for_end(task_id) for door in doors.values()} == {Ending("completed", "42", 1)}
        kinds = [event["type"] for event in journal_of(service, task_id)]
        assert (kinds.count("plan.approved"), kinds.count("tool.called")) == (1, 1)
