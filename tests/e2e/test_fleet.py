"""Replicas with different roles and registries on one PostgreSQL database, as processes."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from harness import House, ledger_plan
from killing import servers_of
from nursery import Nursery
from postgres_server import PostgresServer
from replica_processes import Replica
from waiting import eventually_sync

pytestmark = [pytest.mark.slow, pytest.mark.timeout(580)]

PATIENCE_S = 60.0
AUTO, OFF = {"mode": "auto"}, {"mode": "off"}


class FleetReplica(Replica):
    """A replica with a registry of its own, beside others in one folder."""

    def __init__(self, house: House, name: str, url: str, role: str, sandbox: dict[str, Any], nursery: Nursery) -> None:
        self.registry = house.folder / f"registry-{name}.yaml"
        super().__init__(house, name, url, role=role, registry=self.registry, nursery=nursery)
        self.offer(sandbox)

    def offer(self, sandbox: dict[str, Any]) -> None:
        """Give the server of this replica another identity."""
        self.house.write_registry(sandbox=sandbox)
        self.registry.write_bytes(self.house.settings.tool_registry.read_bytes())

    @property
    def children(self) -> list[str]:
        assert self.process
        places = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [child for place in places for child in place.read_text().split()]

    def refresh(self) -> Any:
        return {one["id"]: one for one in self.client.post("/v1/tools/refresh").json()}

    def status(self) -> Any:
        return {one["id"]: one for one in self.client.get("/v1/tools/status").json()}

    def is_connected(self) -> bool:
        known = self.status()
        return bool(known["ledger"]["connected"] and known["calculator"]["connected"])


Start = Callable[..., FleetReplica]


@pytest.fixture
def start(tmp_path: Path, postgres_url: str) -> Iterator[Start]:
    """Return what starts a replica."""
    house = House(tmp_path)
    (tmp_path / "config.yaml").write_text("limits: {server_start_s: 10}", encoding="utf-8")
    with Nursery() as nursery, ExitStack() as running:

        def start(name: str, role: str = "all", sandbox: dict[str, Any] = AUTO) -> FleetReplica:
            replica = FleetReplica(house, name, postgres_url, role, sandbox, nursery)
            running.callback(replica.close)
            replica.start()
            return replica

        yield start


def test_a_plan_is_run_by_the_replica_that_has_its_entries(start: Start) -> None:
    one, two = start("one"), start("two", sandbox=OFF)
    eventually_sync(lambda: one.is_connected() and two.is_connected(), PATIENCE_S)
    labels = [f"n{number}" for number in range(12)]
    task_ids = [one.submit(label) for label in labels]
    for task_id in task_ids:
        digest = two.task(task_id)["plan_digest"]
        assert two.approval(task_id, digest).status_code == 202
    ended = [two.until_settled(task_id) for task_id in task_ids]
    assert {(task["status"], task["plan_revision"]) for task in ended} == {("completed", 1)}
    assert sorted(one.house.counted) == sorted(labels)
    assert "task_handed_over" in two.log.read_text(
        encoding="utf-8"
    )  # of so many tasks the other one has taken at least one first


def test_only_where_no_replica_has_the_entries_a_new_revision_is_made_once(start: Start) -> None:
    one, two, three = start("one", sandbox=OFF), start("two", sandbox=OFF), start("three")
    eventually_sync(lambda: all(replica.is_connected() for replica in (one, two, three)), PATIENCE_S)
    task_ids = [three.submit(f"n{number}") for number in range(3)]
    digest = {task_id: three.task(task_id)["plan_digest"] for task_id in task_ids}
    three.end(signal.SIGKILL)
    for task_id in task_ids:
        assert one.approval(task_id, digest[task_id]).status_code == 202  # nobody knows yet that it is dead

    def are_repinned() -> bool:
        return all(one.task(task_id)["plan_revision"] == 2 for task_id in task_ids)

    eventually_sync(are_repinned, PATIENCE_S)
    assert {one.task(task_id)["status"] for task_id in task_ids} == {"awaiting_approval"}
    assert one.house.counted == []
    for task_id in task_ids:
        assert two.approval(task_id, two.task(task_id)["plan_digest"]).status_code == 202
    assert {two.until_settled(task_id)["status"] for task_id in task_ids} == {"completed"}
    assert sorted(one.house.counted) == ["n0", "n1", "n2"]
    for task_id in task_ids:
        assert [event["type"] for event in two.events(task_id)].count("plan.repinned") == 1


def test_the_entries_of_a_reloaded_registry_count(start: Start) -> None:
    one, two = start("one", sandbox=OFF), start("two", sandbox=OFF)
    eventually_sync(lambda: one.is_connected() and two.is_connected(), PATIENCE_S)
    two.offer(AUTO)
    assert two.client.post("/v1/tools/reload").json()["changed"] == ["ledger"]
    task_id = two.submit("n")
    one.approve(task_id)
    task = one.until_settled(task_id)
    assert (task["status"], task["plan_revision"]) == ("completed", 1)


def test_a_replica_for_requests_starts_nothing_and_shows_what_workers_have_found(
    start: Start, postgres_url: str, postgres_server: PostgresServer
) -> None:
    api = start("api", "api")
    assert not api.status()["ledger"]["connected"]
    assert api.client.get("/readyz").json()["sandbox"] == "none: this replica starts no servers"
    worker = start("worker", "worker")
    eventually_sync(api.is_connected, PATIENCE_S)
    usable = [one["tool"] for one in api.client.get("/v1/tools").json()["tools"] if one["server"] == "ledger"]
    assert "count" in usable

    def select_listings() -> list[tuple[Any, ...]]:
        return postgres_server.execute("SELECT identity, number FROM catalogue WHERE number > 0", postgres_url)

    before = dict(select_listings())
    assert api.refresh()["ledger"]["connected"]
    grown = [identity for identity, number in select_listings() if number > before[identity]]
    assert len(grown) >= 4  # all servers but one whose folder is in the data directory of the replica

    task_id = api.submit("n")
    edited = ledger_plan("m").model_dump(mode="json")
    tag = {"If-Match": f'"{api.task(task_id)["plan_digest"]}"'}
    changed = api.client.put(f"/v1/tasks/{task_id}/plan", json=edited, headers=tag)
    assert changed.status_code == 200, changed.text
    assert api.approval(task_id, api.task(task_id)["plan_digest"]).status_code == 202
    assert api.until_settled(task_id)["status"] == "completed"
    planned = api.client.post("/v1/tasks", json={"prompt": "Add 15 and 27"}).json()["task_id"]
    eventually_sync(lambda: api.task(planned)["status"] == "awaiting_approval", PATIENCE_S)
    assert api.house.counted == ["m"]
    assert api.children == []
    for path in ("/v1/tasks", "/v1/tools", "/"):
        assert worker.client.get(path).status_code == 404
    for path in ("/healthz", "/readyz", "/metrics"):
        assert worker.client.get(path).status_code == 200
    worker.end(signal.SIGTERM)
    eventually_sync(lambda: not servers_of(api.house), 10)
    assert api.is_connected()
