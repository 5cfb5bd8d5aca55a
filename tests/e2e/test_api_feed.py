"""The feed of all tasks over the real server: one order, which clients can follow and resume (G8)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.api.keys import new_key
from agent_runtime.config import Settings
from serving import Service, frames_of, sums

Frame = tuple[str, str, Any]


@contextmanager
def feed(service: Service, last: str | None = None, **query: Any) -> Iterator[Iterator[Frame]]:
    """Open the feed after `last`, and yield its frames as (event, id, data)."""
    headers = {"Last-Event-ID": last} if last else {}
    with service.client.stream("GET", "/v1/events/stream", headers=headers, params=query) as response:
        assert response.status_code == 200
        yield ((event, cursor, json.loads(data)) for event, cursor, data in frames_of(response))


def first(service: Service, count: int, last: str | None = None, **query: Any) -> list[Frame]:
    """Return the first frames after `last`."""
    with feed(service, last, **query) as frames:
        return list(islice(frames, count))


def journal(service: Service, task_id: str) -> list[Any]:
    events = service.get(f"/v1/tasks/{task_id}/events", limit=1000)["events"]
    return [{name: value for name, value in event.items() if name != "epoch"} for event in events]


def test_the_feed_has_each_event_of_each_task_in_one_order(own_service: Service) -> None:
    one, other = own_service.submit(), own_service.submit()
    own_service.approve(other)
    own_service.wait_for_end(other)
    own_service.approve(one)
    own_service.wait_for_end(one)
    journals = {task_id: journal(own_service, task_id) for task_id in (one, other)}
    frames = first(own_service, sum(map(len, journals.values())))
    for task_id, events in journals.items():
        assert [data for _, _, data in frames if data["task_id"] == task_id] == events
    assert [event for event, _, _ in frames] == [data["type"] for _, _, data in frames]
    ended = [data["task_id"] for event, _, data in frames if event == "task.completed"]
    assert ended == [other, one]


def test_a_client_cut_at_every_frame_gets_exactly_the_rest(own_service: Service) -> None:
    task_id = own_service.complete_task(plan=sums(2))
    whole = first(own_service, len(journal(own_service, task_id)))
    for seen, (_, cursor, _) in enumerate(whole[:-1], 1):
        assert first(own_service, len(whole) - seen, cursor) == whole[seen:]
        assert first(own_service, len(whole) - seen, after=cursor) == whole[seen:]
        assert first(own_service, len(whole) - seen, cursor, after=whole[0][1]) == whole[seen:]


def test_what_happens_while_one_listens_comes_at_once(own_service: Service) -> None:
    with feed(own_service) as frames:
        task_id = own_service.submit()
        event, _, data = next(frames)
        assert (event, data["task_id"]) == ("task.submitted", task_id)
        own_service.approve(task_id)
        assert any(event == "task.completed" for event, _, _ in frames)


def test_a_client_that_has_loaded_all_tasks_follows_from_now_on(own_service: Service) -> None:
    own_service.complete_task()
    with feed(own_service, after="newest") as frames:
        event, cursor, data = next(frames)
        assert (event, data["restarts"]) == ("feed.checkpoint", False)
        task_id = own_service.submit()
        assert next(frames)[2]["task_id"] == task_id
    assert first(own_service, 1, cursor)[0][2]["task_id"] == task_id


def test_a_restart_of_the_service_keeps_the_cursors(own_service: Service) -> None:
    task_id = own_service.complete_task()
    whole = first(own_service, len(journal(own_service, task_id)))
    own_service.restart()
    assert first(own_service, len(whole) - 3, whole[2][1]) == whole[3:]


def test_a_deleted_task_leaves_its_tombstone_and_no_event(own_service: Service) -> None:
    kept, deleted = own_service.complete_task(), own_service.complete_task()
    last = journal(own_service, deleted)[-1]["seq"]
    assert own_service.client.delete(f"/v1/tasks/{deleted}").status_code == 204
    frames = first(own_service, len(journal(own_service, kept)) + 1)
    assert {data["task_id"] for _, _, data in frames[:-1]} == {kept}
    event, _, data = frames[-1]
    assert (event, data["task_id"], data["last_seq"]) == ("task.deleted", deleted, last)


@pytest.mark.parametrize("cursor", ["x", "7", "0.1", "1.1.1", "99999999.1"])
def test_a_cursor_that_is_none_of_the_feed_is_refused(service: Service, cursor: str) -> None:
    for response in (
        service.client.get("/v1/events/stream", headers={"Last-Event-ID": cursor}),
        service.client.get("/v1/events/stream", params={"after": cursor}),
    ):
        assert response.status_code == 422
        assert response.json()["errors"][0]["field"] == "after"


def test_the_head_of_the_feed_has_no_body(service: Service) -> None:
    response = service.client.head("/v1/events/stream")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")


def test_the_feed_needs_a_key_that_may_read_and_takes_no_ticket(tmp_path: Path) -> None:
    reader, submitter = new_key("reader", ["read"]), new_key("submitter", ["submit"])
    lines = [key.line for _, key in (reader, submitter)]
    auth = Settings.model_validate({"auth": {"keys": lines}}).auth
    with Service(tmp_path, auth=auth) as service:

        def status(key: str | None, **query: str) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return service.client.head("/v1/events/stream", headers=headers, params=query).status_code

        assert status(None) == 401
        assert status(submitter[0]) == 403
        assert status(reader[0]) == 200
        task = {"prompt": "Add up", "plan": sums(1)}
        bearer = {"Authorization": f"Bearer {submitter[0]}"}
        task_id = service.client.post("/v1/tasks", json=task, headers=bearer).json()["task_id"]
        address = f"/v1/tasks/{task_id}/stream-ticket"
        ticket = service.client.post(address, headers={"Authorization": f"Bearer {reader[0]}"}).json()["ticket"]
        assert status(None, ticket=ticket) == 401


def test_the_feed_ends_when_the_service_stops(own_service: Service) -> None:
    own_service.submit()
    with own_service.client.stream("GET", "/v1/events/stream") as response:
        frames = frames_of(response)
        next(frames)
        own_service.stop()
        assert [event for event, _, _ in frames] == ["plan.proposed"]
