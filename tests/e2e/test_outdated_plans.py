"""Plans for a server that differs after a restart, from the view of clients."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import House
from killing import Process


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Process]:
    service = Process(House(tmp_path))
    try:
        yield service
    finally:
        service.close()


@pytest.mark.slow
def test_a_plan_for_another_server_is_not_approved_by_its_old_digest_nor_by_one_button(place: Process) -> None:
    place.start()
    read, unread = place.submit("one"), place.submit("two")
    digest = place.task(read)["plan_digest"]
    place.end(signal.SIGTERM)
    place.house.write_registry(sandbox={"mode": "off"})
    place.start()

    refused = place.approval(read, digest)
    assert refused.status_code == 409
    assert refused.json()["type"].endswith(":plan_outdated")
    assert 'ledger: sandbox.mode was "auto" and is "off".' in refused.json()["detail"]
    task = place.task(read)
    assert (task["status"], task["plan_revision"]) == ("awaiting_approval", 2)
    assert place.approval(read).status_code == 428
    assert place.approval(read, digest).status_code == 409

    revisions = place.client.get(f"/v1/tasks/{read}/plan/revisions").json()["revisions"]
    assert [one["by"] for one in revisions] == ["user", "registry"]
    diff = place.client.get(f"/v1/tasks/{read}/plan/diff", params={"from": 1, "to": 2}).json()
    assert diff["changes"][0]["fields"] == {"servers.ledger.sandbox.mode": {"from": "auto", "to": "off"}}
    assert place.house.counted == []

    assert place.approval(read, task["plan_digest"]).status_code == 202
    assert place.until_settled(read)["status"] == "completed"
    assert place.house.counted == ["one"]

    assert place.approval(unread).status_code == 409
    ended = place.task(unread)
    assert (ended["status"], ended["error"]["code"]) == ("failed", "definition_changed")
    assert place.house.counted == ["one"]
