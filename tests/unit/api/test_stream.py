"""The stream as pure functions: frames, positions, log lines."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.api.frames import Position, encode, frames_after, join_frames, parse_position
from agent_runtime.api.problems import BadRequestError, TooManyStreamsError
from agent_runtime.api.stream import Streams, read_request
from agent_runtime.domain import events as ev
from agent_runtime.domain.log_lines import log_line
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.transitions import evolve
from journals import some_step

AT = datetime(2026, 11, 21, 4, 5, 6, 70, tzinfo=UTC)
START = Position(0, 2)


def journal(random: Random, longest: int = 40) -> tuple[Task, list[ev.EventRecord]]:
    """Return a random legal journal and its task."""
    task, records = Task("task_1"), list[ev.EventRecord]()
    while len(records) < longest and (step := some_step(task, random)):
        events, epoch = step
        for event in events:
            records.append(ev.make_record(task.task_id, task.version + 1, epoch, AT, event))
            task = evolve(task, records[-1])
    return task, records


def ids(frames: Sequence[bytes]) -> list[str]:
    return [frame.decode().split("\n")[0].removeprefix("id: ") for frame in frames]


def record_of(event: ev.Event) -> ev.EventRecord:
    return ev.make_record("task_1", 7, 3, AT, event)


def test_an_event_is_a_named_frame_with_its_json_and_an_unnamed_one_with_its_line() -> None:
    named, line = encode(record_of(ev.StepStarted(step_id="s1", title="Read the notes")))
    head, kind, data, *rest = named.decode().split("\n")
    assert (head, kind, rest) == ("id: 7.0", "event: step.started", ["", ""])
    assert json.loads(data.removeprefix("data: ")) == {
        "seq": 7,
        "task_id": "task_1",
        "type": "step.started",
        "at": "2026-11-21T04:05:06.000070Z",
        "data": {"step_id": "s1", "title": "Read the notes"},
    }
    assert line == b"id: 7.1\ndata: Step s1 started: Read the notes\n\n"


def test_an_event_that_is_not_worth_a_line_has_none() -> None:
    named, line = encode(record_of(ev.TaskClaimed(runner="local", epoch=1)))
    assert named.startswith(b"id: 7.0\nevent: task.claimed\n")
    assert line is None


@pytest.mark.parametrize("ending", ["task.completed", "task.failed", "task.cancelled", "task.expired", "plan.rejected"])
def test_the_terminal_event_is_followed_by_done(ending: str) -> None:
    fields = {"result": "x", "code": "x", "message": "x", "revision": 1, "digest": "x"}
    kind = ev.EVENTS[ending]
    event = kind.model_validate({name: fields[name] for name in kind.model_fields if name in fields})
    assert ids(list(frames_after([record_of(event)], START, "all"))) == ["7.0", "7.1", "7.2"]
    assert list(frames_after([record_of(event)], START, "log"))[-1] == b"id: 7.2\ndata: [DONE]\n\n"


@pytest.mark.slow
@given(st.randoms(use_true_random=False))
def test_a_client_that_is_cut_at_any_frame_gets_exactly_the_frames_after_it(random: Random) -> None:
    task, records = journal(random)
    for view in ("all", "events", "log"):
        whole = list(frames_after(records, START, view))
        for seen in [None, *range(len(whole))]:
            last = None if seen is None else ids(whole)[seen]
            wanted = read_request(task, last, None, None)
            rest = [] if wanted is None else frames_after(records[wanted.after :], wanted.seen, view)
            assert list(rest) == whole[0 if seen is None else seen + 1 :]


@given(st.randoms(use_true_random=False))
def test_ids_are_strictly_ascending_and_there_is_one_end(random: Random) -> None:
    task, records = journal(random)
    seen = [parse_position(text) for text in ids(list(frames_after(records, START, "all")))]
    assert seen == sorted(set(seen))
    assert [frame for frame in seen if frame.part == 2] == ([Position(task.version, 2)] if task.terminal else [])


@given(st.text())
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    for event in (
        ev.StepStarted(step_id="s1", title=text),
        ev.TaskFailed(code="x", message=text),
        ev.ToolReturned(step_id="s1", call_id="c", result=StoredResult(text=text), duration_ms=1),
    ):
        line = log_line(record_of(event))
        assert line is not None
        assert len(line) <= 300
        assert not any(ord(mark) < 0x20 or 0x7F <= ord(mark) < 0xA0 for mark in line)
        named, unnamed = encode(record_of(event))
        assert unnamed is not None
        assert (named.count(b"\n"), unnamed.count(b"\n")) == (4, 3)
        assert b"\r" not in named + unnamed


@pytest.mark.parametrize("text", ["", "x", "7.", "7.3", "7.01", "-1", "1e3", " 7", "7\n", "\u0667", "9" * 16, "7.1.1"])
def test_an_id_that_no_stream_gave_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse_position(text)


def test_a_bare_number_means_all_of_that_event() -> None:
    assert parse_position("7") == Position(7, 2)


def a_task(*, ended: bool = False) -> Task:
    task = evolve(Task("task_1"), ev.make_record("task_1", 1, None, AT, ev.TaskSubmitted(prompt="x")))
    if not ended:
        return task
    task = evolve(task, ev.make_record("task_1", 2, None, AT, ev.TaskCancelRequested()))
    return evolve(task, ev.make_record("task_1", 3, None, AT, ev.TaskCancelled()))


@pytest.mark.parametrize("last", ["3", "3.2"])
def test_nothing_is_left_of_a_finished_task_that_was_seen_to_its_end(last: str) -> None:
    assert read_request(a_task(ended=True), last, None, None) is None


@pytest.mark.parametrize("last", ["3.0", "3.1", "2", None])
def test_something_is_left_of_a_finished_task_that_was_not(last: str | None) -> None:
    assert read_request(a_task(ended=True), last, None, None) is not None


def test_the_last_event_id_beats_after() -> None:
    wanted = read_request(a_task(ended=True), "2.1", "1", None)
    assert wanted is not None
    assert wanted.seen == Position(2, 1)


def test_an_id_from_beyond_the_journal_is_refused() -> None:
    with pytest.raises(BadRequestError, match="beyond the end"):
        read_request(a_task(), "2.0", None, None)


def test_an_unknown_view_is_refused() -> None:
    with pytest.raises(BadRequestError, match="no view"):
        read_request(a_task(), None, None, "nothing")


def test_frames_are_sent_together_up_to_a_size() -> None:
    assert list(join_frames([b"a", b"b"])) == [b"ab"]
    large = b"x" * 200_000
    assert list(join_frames([large, large, b"c"])) == [large + large, b"c"]
    assert list(join_frames([])) == []


def test_there_is_no_room_for_a_stream_over_the_limit() -> None:
    streams = Streams(0)
    with pytest.raises(TooManyStreamsError, match=r"limits\.stream_clients"):
        streams.check()
