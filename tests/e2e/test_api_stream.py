"""The stream over the real server: each kind of client gets all frames, even over lost connections (G8)."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving import PATIENCE_S, Service, frames_of, sums
from waiting import eventually_sync


@pytest.fixture(scope="module")
def ended_task(service: Service) -> str:
    return service.complete_task(plan=sums(3))


def test_the_old_client_sees_readable_lines_and_then_done(service: Service) -> None:
    task_id = service.submit(plan=sums(2))
    service.approve(task_id)
    lines = [data for kind, _, data in service.frames(task_id) if kind == "message"]
    assert lines[0] == "Submitted: Add up"
    assert lines[1] == "Plan proposed, 2 steps: calculator.evaluate; calculator.evaluate"
    assert lines[-2] == "Completed: 42"
    assert lines[-1] == "[DONE]"
    assert lines.count("[DONE]") == 1
    assert not any(line.startswith("{") for line in lines)


def test_the_new_client_sees_every_event_of_the_journal(service: Service, ended_task: str) -> None:
    named = [(frame_id, json.loads(data)) for kind, frame_id, data in service.frames(ended_task) if kind != "message"]
    journal = service.get(f"/v1/tasks/{ended_task}/events", limit=1000)["events"]
    assert [frame_id for frame_id, _ in named] == [f"{event['seq']}.0" for event in journal]
    assert [data for _, data in named] == [
        {name: value for name, value in event.items() if name != "epoch"} for event in journal
    ]


def test_a_client_cut_at_every_frame_gets_each_frame_once(service: Service, ended_task: str) -> None:
    whole = service.frames(ended_task)
    for seen, (_, last, _) in enumerate(whole[:-1], 1):
        assert service.frames(ended_task, last) == whole[seen:]
        assert service.frames(ended_task, after=last) == whole[seen:]


def test_a_client_cut_at_every_frame_sees_a_task_once_while_it_runs(service: Service) -> None:
    task_id = service.submit(plan=sums(5))
    seen: list[tuple[str, str, str]] = []
    last = None
    while not seen or seen[-1][2] != "[DONE]":
        with service.stream(task_id, last) as response:
            seen.append(next(frames_of(response)))
        last = seen[-1][1]
        if seen[-1][0] == "plan.proposed":
            service.approve(task_id)
    assert seen == service.frames(task_id)


def test_a_restart_of_the_service_loses_and_repeats_nothing(own_service: Service) -> None:
    task_id = own_service.submit(plan=sums(2))
    with own_service.stream(task_id) as response:
        frames = frames_of(response)
        seen = [next(frames) for _ in range(4)]  # two events with their lines; then the stream is idle
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(list, frames)
            assert own_service.stop() < 5
            assert rest.result(PATIENCE_S) == []
    own_service.start()
    own_service.approve(task_id)
    seen += own_service.frames(task_id, seen[-1][1])
    own_service.restart()
    assert seen == own_service.frames(task_id)
    assert own_service.client.get(f"/v1/tasks/{task_id}/stream", params={"after": seen[-1][1]}).status_code == 204


def test_a_finished_task_that_was_seen_whole_tells_the_client_to_stop(service: Service, ended_task: str) -> None:
    last = service.frames(ended_task)[-1][1]
    for headers in ({"Last-Event-ID": last}, {"Last-Event-ID": last.partition(".")[0]}):
        response = service.client.get(f"/v1/tasks/{ended_task}/stream", headers=headers)
        assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("view", ["events", "log"])
def test_a_view_has_one_kind_of_frames_with_the_same_ids(service: Service, ended_task: str, view: str) -> None:
    whole = service.frames(ended_task)
    wanted = [frame for frame in whole if (frame[0] == "message") == (view == "log") or frame[2] == "[DONE]"]
    assert service.frames(ended_task, view=view) == wanted
    assert service.frames(ended_task, wanted[2][1], view=view) == wanted[3:]


def test_the_last_event_id_beats_after(service: Service, ended_task: str) -> None:
    assert service.frames(ended_task, "3.0", after="1.0") == service.frames(ended_task, "3.0")


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Last-Event-ID": "x"}, {}),
        ({"Last-Event-ID": "7.3"}, {}),
        ({"Last-Event-ID": "-1"}, {}),
        ({"Last-Event-ID": "999999.0"}, {}),
        ({}, {"after": "1;2"}),
        ({}, {"view": "all"}),
    ],
)
def test_a_bad_position_or_view_is_a_bad_request(
    service: Service, ended_task: str, headers: dict[str, str], query: dict[str, str]
) -> None:
    response = service.client.get(f"/v1/tasks/{ended_task}/stream", headers=headers, params=query)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


def test_an_unknown_task_has_no_stream(service: Service) -> None:
    assert service.client.get("/v1/tasks/task_none/stream").status_code == 404
    assert service.client.head("/v1/tasks/task_none/stream").status_code == 404


def test_the_headers_keep_proxies_from_holding_frames_back(service: Service) -> None:
    response = service.client.head(f"/v1/tasks/{service.submit()}/stream")  # the task waits, and HEAD must not
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"


def test_an_idle_stream_is_kept_alive(tmp_path: Path) -> None:
    service = Service(tmp_path, limits={"keep_alive_s": 0.1})
    service.start()
    try:
        with service.stream(service.submit(), view="log") as response:
            comments = (line for line in response.iter_lines() if line.startswith(":"))
            assert [next(comments) for _ in range(3)] == [": keep-alive"] * 3
    finally:
        service.stop()


def test_streams_over_the_limit_are_put_off_and_room_is_made_when_one_goes(tmp_path: Path) -> None:
    service = Service(tmp_path, limits={"stream_clients": 1})
    service.start()
    try:
        task_id = service.submit()
        path = f"/v1/tasks/{task_id}/stream"
        with service.stream(task_id) as response:
            lines = response.iter_lines()  # keeps the connection open
            next(lines)
            refused = service.client.get(path)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "stream_clients" in refused.json()["detail"]
        eventually_sync(lambda: service.open_streams == 0)
        with service.stream(task_id) as response:
            assert response.status_code == 200
    finally:
        service.stop()


def test_clients_that_go_leave_nothing_behind(service: Service) -> None:
    task_id = service.submit()
    for _ in range(20):
        with service.stream(task_id) as response:
            next(response.iter_lines())
    eventually_sync(lambda: service.open_streams == 0)


def test_many_clients_see_the_same(service: Service) -> None:
    task_id = service.submit(plan=sums(2))

    def follow(_: int) -> Any:
        return service.frames(task_id)

    with ThreadPoolExecutor(10) as pool:
        following = [pool.submit(follow, number) for number in range(10)]
        eventually_sync(lambda: service.open_streams == 10)
        service.approve(task_id)
        seen = [each.result(PATIENCE_S) for each in following]
    assert all(frames == seen[0] for frames in seen)
    assert seen[0][-1][2] == "[DONE]"


def test_a_task_deleted_while_it_is_not_read_ends_with_404(service: Service) -> None:
    task_id = service.submit()
    service.client.post(f"/v1/tasks/{task_id}/cancel")
    service.client.delete(f"/v1/tasks/{task_id}")
    with pytest.raises(httpx2.HTTPStatusError, match="404"):
        service.client.get(f"/v1/tasks/{task_id}/stream").raise_for_status()
