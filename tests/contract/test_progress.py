"""Progress at the port `ToolServers`: servers that report the progress of calls, over stdio and over HTTP."""

import asyncio
import queue
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.domain.elicitation import Question, Reply
from agent_runtime.domain.errors import OutcomeUnknownError
from agent_runtime.domain.patience import Report
from agent_runtime.domain.tools import StoredResult
from odd_servers import EventStreamHandler, serve_over
from pools import KEY, Lag, Place
from servers.working_server import messages

SERVER = Path(__file__).parents[1] / "servers" / "working_server.py"


@dataclass
class Allowance:
    """A patience that gives every call this many seconds, and records the reports and the questions."""

    longest_s: float
    told: list[Report] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    task_id: str = "t"

    def extend(self, seconds: float) -> float:
        self.asked.append(seconds)
        return min(seconds, self.longest_s)

    def tell(self, report: Report) -> None:
        self.told.append(report)

    async def ask(self, question: Question, expired: asyncio.Event) -> Reply:  # noqa: ARG002 - the shape of the port
        raise AssertionError(question)


class Handler(EventStreamHandler):
    """The same server over HTTP: every message about a request comes on the stream that answers it."""

    def do_POST(self) -> None:  # noqa: N802 - the name that the library calls
        message = self.read_message()
        self.begin_stream(200 if "id" in message else 202)
        for said in messages(message):
            self.say(said)


class BesideHandler(EventStreamHandler):
    """The same server, which reports on the stream that a GET opens, and answers on that of the POST."""

    beside: "queue.Queue[Any]"

    def do_GET(self) -> None:  # noqa: N802 - the name that the library calls
        self.begin_stream(200)
        while (said := self.beside.get(timeout=20)) is not None:
            self.say(said)

    def do_POST(self) -> None:  # noqa: N802 - the name that the library calls
        message = self.read_message()
        self.begin_stream(200 if "id" in message else 202, **{"Mcp-Session-Id": "one"})
        for said in messages(message):
            self.beside.put(said) if "method" in said else self.say(said)

    def do_DELETE(self) -> None:  # noqa: N802 - the name that the library calls
        self.beside.put(None)
        self.send_error(405)


class OldHandler(BesideHandler):
    """The same server over HTTP+SSE of 2024-11-05: everything comes on the stream that a GET opens."""

    def do_GET(self) -> None:  # noqa: N802 - the name that the library calls
        self.begin_stream(200)
        self.wfile.write(b"event: endpoint\ndata: /messages\n\n")
        while (said := self.beside.get(timeout=20)) is not None:
            self.wfile.write(b"event: message\n")
            self.say(said)

    def do_POST(self) -> None:  # noqa: N802 - the name that the library calls
        message = self.read_message()
        if self.path != "/messages":
            self.send_error(405)
            return
        self.send_response(202)
        self.end_headers()
        for said in messages(message):
            self.beside.put(said)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def outcome(
    place: Place,
    tool: str,
    times: int,
    patience: Allowance,
    *,
    timeout_s: float = 0.5,
    over: str = "stdio",
    handler: type[EventStreamHandler] = Handler,
) -> StoredResult | OutcomeUnknownError:
    """Return the outcome of a call that reports this many times."""
    with serve_over(over, SERVER, handler) as entry:
        async with asyncio.timeout(20), place.pool() as pool, pool.lease([entry]) as lease:
            arguments, cancel = {"label": str(times)}, asyncio.Event()
            try:
                return await lease.call(
                    "remote", tool, arguments, timeout_s=timeout_s, cancel=cancel, patience=patience
                )
            except OutcomeUnknownError as error:
                return error


@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_a_call_that_reports_progress_is_not_given_up_at_its_time_out(place: Place, over: str) -> None:
    patience = Allowance(60)
    result = await outcome(place, "work", 6, patience, over=over)
    assert isinstance(result, StoredResult)
    assert result.text == "done"
    assert (patience.told[0].progress, patience.told[0].total) == (1, 6)
    assert patience.asked, "its time-out passed meanwhile"


@pytest.mark.parametrize("handler", [BesideHandler, OldHandler])
async def test_reports_count_on_whichever_stream_they_come(place: Place, handler: type[BesideHandler]) -> None:
    handler.beside = queue.Queue()
    patience = Allowance(60)
    try:
        result = await outcome(place, "work", 6, patience, over="http", handler=handler)
    finally:
        handler.beside.put(None)
    assert isinstance(result, StoredResult)
    assert (result.text, patience.told[0].progress) == ("done", 1)
    assert patience.asked, "its time-out passed meanwhile"


@pytest.mark.slow
@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_no_report_makes_a_call_longer_than_its_cap(place: Place, over: str) -> None:
    began = time.monotonic()
    error = await outcome(place, "work", 100, Allowance(1.2), over=over)
    assert "there was progress, but no answer within 1.2 s, and it may take no longer" in str(error)
    assert 1.2 < time.monotonic() - began < 5


async def test_the_time_out_counts_from_the_last_report(place: Place) -> None:
    error = await outcome(place, "stall", 3, Allowance(60))
    assert ", and no progress for 0.5 s" in str(error)


async def test_a_report_after_the_time_out_comes_too_late(place: Place) -> None:
    patience = Allowance(60)
    error = await outcome(place, "work", 100, patience, timeout_s=0.05)
    assert "there was no answer within 0.05 s" in str(error)
    assert not patience.asked


@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_progress_with_a_token_of_nobody_changes_nothing(place: Place, over: str) -> None:
    patience = Allowance(60)
    error = await outcome(place, "mistake", 100, patience, over=over)
    assert "there was no answer within 0.5 s" in str(error)
    assert (patience.asked, patience.told) == ([], [])


async def test_a_report_that_cannot_be_read_is_progress_all_the_same(place: Place) -> None:
    patience = Allowance(60)
    result = await outcome(place, "mumble", 6, patience)
    assert isinstance(result, StoredResult)
    assert patience.told[0] == Report()
    assert all(len(report.message) <= 4000 for report in patience.told)


async def test_a_flood_of_reports_stalls_nobody_and_few_of_them_are_told(place: Place) -> None:
    patience, lag = Allowance(60), Lag()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(lag.measure())
        began = time.monotonic()
        result = await outcome(place, "flood", 30_000, patience, timeout_s=20)
        took_s = time.monotonic() - began
        watch.cancel()
    assert isinstance(result, StoredResult)
    assert 1 <= len(patience.told) <= took_s + 1
    assert lag.worst_s < 1  # G9 promises answers within 1 s


async def test_secrets_that_a_server_reports_are_redacted(place: Place) -> None:
    patience = Allowance(60)
    await outcome(place, "work", 2, patience)
    assert "part 1 with [redacted]" in patience.told[0].message
    assert KEY not in str(patience.told)
