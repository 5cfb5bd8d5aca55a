"""Questions of servers at the port `ToolServers`: asked in the middle of a call, over stdio and over HTTP."""

import asyncio
import json
import queue
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from agent_runtime.domain.elicitation import DECLINED, Question, Reply
from agent_runtime.domain.errors import OutcomeUnknownError
from agent_runtime.domain.patience import Report
from agent_runtime.domain.tools import StdioServer, StoredResult
from odd_servers import EventStreamHandler, serve_over
from pools import KEY, Place
from servers.asking_server import FORM, handshake, messages
from waiting import eventually

SERVER = Path(__file__).parents[1] / "servers" / "asking_server.py"
CONTENT = {"name": "Ann", "count": 3}
ANSWER = Reply("accept", CONTENT)


@dataclass
class Person:
    """A patience with a person behind it who gives this reply, or never says anything."""

    reply: Reply = DECLINED
    silent: bool = False
    task_id: str = "t"
    longest_s: float = 60
    asked: list[Question] = field(default_factory=list)
    ended: int = 0

    def extend(self, seconds: float) -> float:
        return min(seconds, self.longest_s)

    def tell(self, report: Report) -> None:
        raise AssertionError(report)

    async def ask(self, question: Question, expired: asyncio.Event) -> Reply:
        self.asked.append(question)
        try:
            if self.silent:
                await expired.wait()
                return DECLINED
            return self.reply
        finally:
            self.ended += 1


class Handler(EventStreamHandler):
    """The same server over HTTP: it asks on the stream that answers the call, and the answer is posted."""

    answers: "queue.Queue[Any]" = queue.Queue()

    def do_POST(self) -> None:  # noqa: N802 - the name that the library calls
        message = self.read_message()
        if "method" not in message:
            self.answers.put(message.get("result") or {"error": message["error"]["code"]})
        answer = handshake(message)
        self.begin_stream(200 if "id" in message and "method" in message else 202)
        if message.get("method") == "tools/call":
            for said in messages(message["id"], message["params"]["name"], self.answers):
                self.say(said)
        elif answer is not None:
            self.say({"jsonrpc": "2.0", "id": message["id"], "result": answer})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def ask(place: Place, tool: str, person: Person | None, *, timeout_s: float = 15, over: str = "stdio") -> Any:
    """Call this tool, and return the answer that the server got."""
    with serve_over(over, SERVER, Handler) as entry:
        async with asyncio.timeout(20), place.pool() as pool, pool.lease([entry]) as lease:
            cancel = asyncio.Event()
            result = await lease.call("remote", tool, {}, timeout_s=timeout_s, cancel=cancel, patience=person)
            return json.loads(result.text)


@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_a_question_of_a_server_is_asked_and_gets_its_answer(place: Place, over: str) -> None:
    person = Person(ANSWER)
    assert await ask(place, "form", person, over=over) == {"action": "accept", "content": CONTENT}
    assert person.asked == [Question("Who are you?", FORM)]


@pytest.mark.parametrize("over", ["stdio", "http"])
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_server_learns_that_its_question_was_declined_or_dismissed(
    place: Place, over: str, action: Literal["decline", "cancel"]
) -> None:
    assert await ask(place, "form", Person(Reply(action)), over=over) == {"action": action}


@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_a_question_that_nobody_answers_is_declined_once_its_call_is_out_of_patience(
    place: Place, over: str
) -> None:
    person = Person(silent=True)
    assert await ask(place, "form", person, timeout_s=0.5, over=over) == {"action": "decline"}
    assert person.ended == 1


async def test_each_question_gives_a_call_its_time_out_anew_up_to_its_cap(place: Place) -> None:
    assert await ask(place, "twice", Person(silent=True), timeout_s=0.4) == [{"action": "decline"}] * 2
    began = time.monotonic()
    assert await ask(place, "twice", Person(silent=True, longest_s=1.0), timeout_s=0.8) == [{"action": "decline"}] * 2
    assert time.monotonic() - began < 10, "the second one was declined at the cap, and the server answered at once"


async def test_a_server_that_does_not_wait_for_its_answer_ends_the_question(place: Place) -> None:
    person = Person(silent=True)
    assert await ask(place, "hasty", person) is None
    assert person.ended == len(person.asked)


async def test_a_server_may_withdraw_its_question(place: Place) -> None:
    person = Person(silent=True)
    assert await ask(place, "withdrawn", person) == "withdrawn"
    assert person.ended == len(person.asked)


async def test_nobody_is_asked_where_the_call_has_nobody_behind_it(place: Place) -> None:
    assert await ask(place, "form", None) == {"action": "decline"}


async def test_sampling_roots_and_what_nobody_knows_are_refused_with_an_error(place: Place) -> None:
    errors = await ask(place, "others", Person(ANSWER))
    assert errors == [{"error": -32601}] * 3


async def test_a_question_that_cannot_be_read_is_refused_and_never_asked(place: Place) -> None:
    person = Person(Reply("accept", {}))
    *refused, last = await ask(place, "odd", person)
    assert refused == [{"error": -32602}] * 3
    assert last == {"error": -32602}
    assert person.asked == []


@pytest.mark.parametrize("over", ["stdio", "http"])
async def test_of_a_hostile_form_what_can_be_shown_is_asked_and_the_rest_is_named(place: Place, over: str) -> None:
    person = Person(Reply("cancel"))
    assert await ask(place, "hostile", person, over=over) == {"action": "cancel"}
    (question,) = person.asked
    fields: Any = question.requested_schema["properties"]
    assert question.requested_schema["required"] == ["name"]
    assert list(fields)[:7] == ["name", "city", "__proto__", "constructor", "kind", "nothing", "choice"]
    assert len(fields) > 300
    assert fields["city"] == {"type": "string", "description": "Parts of this field that cannot be shown: enum."}
    unshown = "type, title, enumNames, minLength, default"
    assert fields["kind"] == {"description": f"Parts of this field that cannot be shown: {unshown}."}
    assert question.message.startswith(
        "Can you show this?\n\nFields of the form that are too large to be shown: large n"
    )
    assert question.message.endswith(" more.")


async def test_the_form_of_a_question_in_a_round_may_be_hostile_too(place: Place) -> None:
    person = Person(Reply("decline"))
    got = json.loads((await call_modern(place, "hostile", person)).text)
    assert (got["who"]["action"], len(person.asked)) == ("decline", 1)


async def test_secrets_that_a_server_asks_with_are_redacted(place: Place) -> None:
    person = Person(Reply("accept", {}))
    await ask(place, "secret", person)
    assert person.asked[0].message == "Is [redacted] right?"
    assert KEY not in str(person.asked)


@pytest.mark.parametrize(("tasks", "asked"), [(("t", "t"), 2), (("t", "u"), 0)])
async def test_a_question_is_never_shown_to_another_task(place: Place, tasks: tuple[str, str], asked: int) -> None:
    people = [Person(silent=True, task_id=task_id) for task_id in tasks]
    with serve_over("stdio", SERVER, Handler) as entry:
        async with (
            asyncio.timeout(20),
            place.pool() as pool,
            pool.lease([entry]) as lease,
            asyncio.TaskGroup() as group,
        ):
            for person in people:
                call = lease.call("remote", "form", {}, timeout_s=0.5, cancel=asyncio.Event(), patience=person)
                group.create_task(call)
    assert sum(len(person.asked) for person in people) == asked


# MCP 2026-07-28: the server answers that it needs input, and is called again.


async def call_modern(place: Place, tool: str, person: Person | None, timeout_s: float = 15) -> StoredResult:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVER), "modern"]}
    env = {"NOTES": str(place.notes_file)}
    entry = StdioServer.model_validate({"id": "remote", "type": "local_stdio", "config": config | {"env": env}})
    async with asyncio.timeout(20), place.pool() as pool, pool.lease([entry]) as lease:
        cancel, arguments = asyncio.Event(), {"label": "x"}
        return await lease.call("remote", tool, arguments, timeout_s=timeout_s, cancel=cancel, patience=person)


async def test_a_server_that_needs_input_is_called_again_with_the_answer_and_its_state(place: Place) -> None:
    person = Person(ANSWER)
    got = json.loads((await call_modern(place, "form", person)).text)
    assert (got["who"]["action"], got["who"]["content"], got["arguments"]) == ("accept", CONTENT, {"label": "x"})
    assert (got["state"], got["offered"]["elicitation"]) == ("1", {})
    assert person.asked == [Question("Number 0?", FORM)]


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_call_may_take_several_rounds(place: Place, action: Literal["decline", "cancel"]) -> None:
    person = Person(Reply(action))
    got = json.loads((await call_modern(place, "twice", person)).text)
    assert (got["who"]["action"], got["state"], len(person.asked)) == (action, "2", 2)
    assert json.loads((await call_modern(place, "later", None)).text)["state"] == "2"


async def test_a_question_of_a_round_is_declined_once_the_call_is_out_of_patience(place: Place) -> None:
    person = Person(silent=True)
    got = json.loads((await call_modern(place, "form", person, timeout_s=0.5)).text)
    assert (got["who"]["action"], person.ended) == ("decline", 1)


@pytest.mark.parametrize(("tool", "why"), [("others", "sampling/createMessage"), ("many", "after 16 rounds")])
async def test_a_server_that_needs_what_nobody_gives_has_failed_the_call(place: Place, tool: str, why: str) -> None:
    failed = await call_modern(place, tool, Person(ANSWER))
    assert failed.is_error
    assert why in failed.text


@dataclass
class Latecomer(Person):
    """Answers once the server of this place is gone."""

    place: Place | None = None

    async def ask(self, question: Question, expired: asyncio.Event) -> Reply:
        place = self.place
        assert place is not None
        await eventually(lambda: not place.find_processes())
        return await super().ask(question, expired)


@pytest.mark.parametrize("tool", ["die", "leave"])
async def test_the_outcome_is_not_known_where_a_later_round_gets_no_answer_or_cannot_be_sent(
    place: Place, tool: str
) -> None:
    person = Latecomer(ANSWER, place=place) if tool == "leave" else Person(ANSWER)
    with pytest.raises(OutcomeUnknownError, match="no answer after the call was sent"):
        await call_modern(place, tool, person)
