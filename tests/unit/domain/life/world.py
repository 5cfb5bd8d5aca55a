"""What really happens outside, and whether it may: the judge of G2, G4, G5 and G7.

It knows the calls that reached the servers, and the journal as anybody may read it: names, numbers and JSON. It has
its own idea of what they mean, and nothing of the core's: no fold, no table, no rules, no commands.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from agent_runtime.domain.events import EventRecord, ToolCalled
from agent_runtime.domain.values import digest_of_bytes
from unit.domain.life.plans import ALWAYS_ASKED, CHANGING, IDEMPOTENT, OUTSIDE

ENDS = frozenset({"task.completed", "task.failed", "task.cancelled", "task.expired", "plan.rejected"})
OF_A_RUN = frozenset(
    {
        "task.claimed",
        "task.waiting",
        "task.completed",
        "task.failed",
        "call.approval_requested",
        "input.requested",
        "input.withdrawn",
        "budget.exceeded",
    }
)
_REFERENCE = re.compile(r"\$\{(\w+)\.(text|output\.n)\}")


class UnresolvedError(Exception):
    """A reference names nothing."""


@dataclass
class Step:
    """What the journal has said of a step."""

    plan: dict[str, Any]
    status: str = "pending"
    use: int = 0
    """How often a person has said that it may be called anew."""
    call_id: str | None = None
    result: dict[str, Any] | None = None
    """Of its latest call; of an agent, what its model said last."""
    granted: dict[str, Any] | None = None
    """The arguments that a person has approved."""
    asked: dict[str, Any] | None = None
    question: str | None = None
    """What the server of the open call asks."""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """The answers of its model."""
    settled: int = 0
    """How many calls of the latest answer the model knows the fate of."""
    called: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    """The calls of an agent that were begun: tool, turn and number."""

    @property
    def is_agent(self) -> bool:
        return bool(self.plan["kind"] == "agent")

    @property
    def needs(self) -> set[str]:
        text = json.dumps([self.sources, self.plan["when"]])
        return {*self.plan["depends_on"], *(name for name, _ in _REFERENCE.findall(text))}

    @property
    def sources(self) -> Any:
        return self.plan["instruction"] if self.is_agent else self.plan["arguments"]

    @property
    def wanted(self) -> dict[str, Any] | None:
        """The call that the model waits for."""
        calls = self.turns[-1]["calls"] if self.turns else []
        return calls[self.settled] if self.settled < len(calls) else None

    def settle(self) -> None:
        """The model gets something for its call, and would have to ask once more for another."""
        self.settled += 1
        self.status, self.call_id, self.granted, self.asked = "running", None, None, None


@dataclass
class World:
    """The servers, which count; and the judge, who reads along."""

    breaches: list[str] = field(default_factory=list)
    sent: Counter[tuple[str, int | None, int | None, int]] = field(default_factory=Counter)
    """The calls that reached a server: by step, the model's turn and its number in it, and approved use."""
    calls: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """The intents that are written, by call id: the use they are for, and what they say."""
    received: set[str] = field(default_factory=set)
    epoch: int = 0
    revision: int = 0
    digest: str = ""
    approved: str | None = None
    """The digest of the plan that somebody let run."""
    by_person: bool = False
    """Whether that was a person, and not the operator's policy."""
    open_for_decision: bool = False
    covers: bool = False
    """Whether approving the plan covers what follows from data."""
    authors: set[str] = field(default_factory=set)
    """Whoever had a say in what is to be approved."""
    has_begun: bool = False
    """Whether a step was started."""
    cancelled: bool = False
    end: str | None = None
    steps: dict[str, Step] = field(default_factory=dict)

    def breach(self, guarantee: str, what: str) -> None:
        self.breaches.append(f"{guarantee}: {what}")

    def expect(self, guarantee: str, holds: object, what: str) -> None:
        if not holds:
            self.breach(guarantee, what)

    # The servers.

    def receive(self, call: ToolCalled) -> None:
        """A call arrives at its server."""
        self.expect("G4", self.approved, f"{call.call_id} was sent, and no plan is approved")
        self.expect("G7", not self.cancelled, f"{call.call_id} was sent after an acknowledged cancel")
        self.expect("G2", call.call_id not in self.received, f"{call.call_id} was sent twice")
        self.received.add(call.call_id)
        if call.call_id not in self.calls:
            self.breach("G2", f"{call.call_id} was sent, and its intent is not written")
            return
        use, said = self.calls[call.call_id]
        self.expect("G5", said == json.loads(call.model_dump_json()), f"{call.call_id} is not what was written")
        if call.step_id not in self.steps:
            return  # a breach of G5, and known as one since it was written
        plan = self.steps[call.step_id].plan
        most = max(3, plan.get("retries", 0) + 1) if plan.get("tool", call.tool) in IDEMPOTENT else 1
        this = call.step_id, call.turn, call.index, use
        self.sent[this] += 1
        times = self.sent[this]
        self.expect("G2", times <= most, f"{call.step_id} was sent {times} times for one approved use")

    def be_asked(self, step_id: str, turn: int, epoch: int) -> None:
        """A model is asked. Whoever does not know that it was superseded may ask in vain."""
        self.expect("G4", self.approved, f"the model of {step_id} was asked, and no plan is approved")
        if epoch == self.epoch:
            known = len(self.steps[step_id].turns)
            self.expect("G2", turn > known, f"the model of {step_id} was asked for turn {turn} once more")

    # The reader of the journal.

    def read(self, record: EventRecord) -> None:
        """One more record that was acknowledged."""
        kind, data = record.type, json.loads(record.data)
        self.expect("G7", not self.end, f"{kind} follows {self.end}")
        if kind == "tool.returned" and record.epoch is not None and record.epoch < self.epoch:
            return  # the late answer to a run that was superseded
        self._read_epoch(record)
        self._read_author(kind, data)
        step = self.steps.get(data.get("step_id") or "")
        if kind.startswith("plan."):
            self._read_plan(kind, data)
        elif kind == "tool.called":
            self._read_intent(data, step)
        elif step is not None:
            self._read_step(kind, data, step)
        if kind == "task.cancel_requested":
            self.cancelled = True
        if kind == "task.completed":
            self._read_completion()
        if kind in ENDS:
            self.end = kind

    def _read_epoch(self, record: EventRecord) -> None:
        of_a_run = record.type in OF_A_RUN or record.type.startswith(("step.", "tool."))
        if record.type == "task.failed" and record.epoch is None:
            of_a_run = not self.open_for_decision  # else the service ends a plan that nobody can approve any more
        if record.type == "task.claimed":
            self.expect("G2", record.epoch == self.epoch + 1, "a claim that is not the next one")
            self.epoch = record.epoch or 0
        elif record.epoch is not None or (of_a_run and record.type != "step.resolved"):
            self.expect("G2", record.epoch == self.epoch, f"{record.type} by a run that was superseded")

    def _read_author(self, kind: str, data: dict[str, Any]) -> None:
        """Nobody approves what they wrote, unless they may submit as well."""
        if kind in {"plan.approved", "call.approved"} and data["actor"] in self.authors and "scopes" in data:
            both = {"submit", "admin"}.intersection(data["scopes"])
            self.expect("G4", both, f"{kind} by {data['actor']}, who had a say in it")
        told_a_model = kind == "call.denied" and data["comment"] and self.steps[data["step_id"]].is_agent
        shaped = kind in {"task.submitted", "plan.edited", "plan.revision_requested"} or told_a_model
        gave = kind == "step.resolved" and data["output"] is not None
        if shaped or gave or (kind == "input.answered" and data["content"] is not None):
            self.authors.add(data["actor"])

    def _read_plan(self, kind: str, data: dict[str, Any]) -> None:
        if kind in {"plan.proposed", "plan.edited"}:
            self.expect("G4", self.approved is None, "the approved plan was changed")
            self.expect("G4", data["revision"] == self.revision + 1, "a plan that is not the next revision")
            self.expect("G4", data["digest"] == _digest(data["contract"]), "a plan under another plan's digest")
            self.revision, self.digest, self.open_for_decision = data["revision"], data["digest"], True
            self.covers = data["contract"].get("covers_data", False)
            self.steps = {step["id"]: Step(step) for step in data["contract"]["steps"]}
            return
        if kind == "plan.repinned":
            self._read_repinned(data)
            return
        current = self.open_for_decision and (data["revision"], data["digest"]) == (self.revision, self.digest)
        self.expect("G4", current, f"{kind} of a plan that nobody was asked about, or once more")
        if kind == "plan.approved":
            self.expect("G4", self.approved is None, "a second approval")
            self.approved, self.by_person = data["digest"], data["actor"] != "policy"
        self.open_for_decision = False

    def _read_repinned(self, data: dict[str, Any]) -> None:
        """The same plan for other servers: whoever had approved it had not approved that."""
        self.expect("G4", not self.has_begun, "the plan was made anew after a step had started")
        self.expect("G4", data["revision"] == self.revision + 1, "a plan that is not the next revision")
        self.expect("G4", data["digest"] == _digest(data["contract"]), "a plan under another plan's digest")
        same = [step.plan for step in self.steps.values()] == data["contract"]["steps"]
        self.expect("G4", same, "a plan was made anew with other steps")
        self.revision, self.digest, self.open_for_decision = data["revision"], data["digest"], True
        self.approved = None
        self.steps = {step["id"]: Step(step) for step in data["contract"]["steps"]}

    def _read_intent(self, data: dict[str, Any], step: Step | None) -> None:
        self.expect("G4", self.approved and self.approved == self.digest, "a call of a plan that is not approved")
        self.expect("G7", not self.cancelled, f"{data['call_id']} began after an acknowledged cancel")
        if step is None:
            self.breach("G5", f"a call of {data['step_id']}, which the plan does not have")
            return
        self.expect("G5", self.is_its_turn(data["step_id"]), f"{data['step_id']} was called out of its turn")
        if step.is_agent:
            self._read_call_of_model(data, step)
            free = data["tool"] not in CHANGING | OUTSIDE or self._approved_beforehand(step)
            asks = data["tool"] in ALWAYS_ASKED or not free
        else:
            self._read_call_of_plan(data, step)
            asks = self._asks(data["step_id"])
        if asks:
            approved = _same(step.granted, data["arguments"])
            self.expect("G4", approved, f"nobody has approved what {data['step_id']} sends")
        step.call_id, step.result = data["call_id"], None
        self.calls[data["call_id"]] = step.use, data

    def _read_call_of_plan(self, data: dict[str, Any], step: Step) -> None:
        same = all(step.plan[name] == data[name] for name in ("server", "tool"))
        self.expect("G5", same, f"{data['step_id']} calls another tool")
        try:
            same = _same(self.arguments(data["step_id"]), data["arguments"])
            self.expect("G5", same, "other arguments than the plan's")
        except UnresolvedError:
            self.breach("G5", f"{data['step_id']} was called, and its arguments do not exist")

    def _read_call_of_model(self, data: dict[str, Any], step: Step) -> None:
        self._expect_wanted(data, step)
        this = data["tool"], data.get("turn"), data.get("index")
        if this not in step.called:
            most = {tool["tool"]: tool["max_calls"] for tool in step.plan["tools"]}.get(data["tool"], 0)
            times = [tool for tool, *_ in step.called].count(data["tool"]) + 1
            self.expect("G5", times <= most, f"{data['tool']} was called {times} times for {data['step_id']}")
            step.called.append(this)

    def _expect_wanted(self, data: dict[str, Any], step: Step) -> None:
        """A call is the one that the model waits for, word for word, of a tool that the step lists."""
        place = f"call {data.get('index')} of turn {data.get('turn')} of {data['step_id']}"
        wanted = step.wanted
        if wanted is None or (data.get("turn"), data.get("index")) != (len(step.turns), step.settled):
            self.breach("G5", f"{place} is not what the model waits for")
            return
        listed = {f"{tool['server']}__{tool['tool']}": (tool["server"], tool["tool"]) for tool in step.plan["tools"]}
        same = listed.get(wanted["name"]) == (data["server"], data["tool"])
        self.expect("G5", same, f"{place} is of another tool, or of one that is not listed")
        self.expect("G5", _same(given(wanted), data["arguments"]), f"{place} has other arguments than the model's")

    def _read_answer(self, data: dict[str, Any], step: Step) -> None:
        turn, last = data["turn"], step.turns[-1] if step.turns else None
        self.expect("G2", turn == len(step.turns) + 1, f"turn {turn} of {data['step_id']} is not the next one")
        self.expect("G5", turn <= step.plan["max_turns"], f"turn {turn} of {data['step_id']} is one too many")
        open_ = step.status == "running" and step.wanted is None and not (last and last["answer"])
        self.expect("G5", open_, f"the model of {data['step_id']} has not been asked")
        self.expect("G7", bool(data["calls"]) != bool(data["answer"]), f"turn {turn} of {data['step_id']} is neither")
        step.turns.append(data)
        step.settled = 0

    def _read_step(self, kind: str, data: dict[str, Any], step: Step) -> None:
        match kind:
            case "step.started":
                step.status, self.has_begun = "running", True
            case "model.answered":
                self._read_answer(data, step)
            case "input.requested" | "input.answered" | "input.withdrawn":
                self._read_question(kind, data, step)
            case "tool.returned" if data["call_id"] == step.call_id and step.is_agent:
                step.question = None
                step.settle()
            case "tool.denied" if data.get("turn") is not None:
                place = data["turn"], data["index"]
                self.expect("G5", place == (len(step.turns), step.settled), "a call is refused that nobody waits for")
                step.settle()
            case "tool.returned" if data["call_id"] == step.call_id:
                step.question = None
                step.result = data["result"]
            case "step.completed" | "step.failed" | "step.skipped":
                step.status = kind.removeprefix("step.")
                if step.is_agent:
                    step.result = step.turns[-1]["answer"] if step.turns else None
                    done = step.result or kind != "step.completed"
                    self.expect("G7", done, f"{data['step_id']} is done, and its model has not said so")
            case "call.approval_requested":
                self.expect("G7", not self.cancelled, f"a person is asked about {data['step_id']} after a cancel")
                if step.is_agent:
                    self._expect_wanted(data, step)
                step.status, step.asked = "asking", data["arguments"]
            case "call.approved":
                same = step.status == "asking" and data["arguments_digest"] == _digest_of(step.asked)
                self.expect("G4", same, "another concrete call was approved than the one asked for")
                step.status, step.granted = "running" if step.is_agent else "pending", step.asked
            case "call.denied" if step.is_agent:
                step.settle()
            case "call.denied":
                step.status = "failed"
            case "step.outcome_unknown":
                step.status, step.question = "unknown", None
            case "step.resolved":
                self._read_resolution(data, step)

    def _read_question(self, kind: str, data: dict[str, Any], step: Step) -> None:
        if kind == "input.requested":
            open_ = step.status == "running" and data["call_id"] == step.call_id and step.result is None
            self.expect("G5", open_ and step.question is None, "a question in no open call, or beside another one")
            self.expect("G7", not self.cancelled, f"a person is asked in {data['step_id']} after a cancel")
            step.question = data["question_id"]
            return
        self.expect("G4", step.question == data["question_id"], f"{kind} of a question that nobody asks")
        self.expect("G7", kind == "input.withdrawn" or not self.cancelled, "a question was answered after a cancel")
        step.question = None

    def _read_resolution(self, data: dict[str, Any], step: Step) -> None:
        asked = step.status == "unknown" and data["call_id"] == step.call_id
        self.expect("G2", asked, "a person spoke of a call that is not in question")
        match data["resolution"]:
            case "retry":
                step.status = "running" if step.is_agent else "pending"
                step.use, step.granted = step.use + 1, None
            case "done" if step.is_agent:
                step.settle()
            case "done":
                text = "" if data["output"] is None else json.dumps(data["output"], separators=(",", ":"))
                step.status, step.result = "completed", {"text": text, "output": data["output"], "is_error": False}
            case "skip":
                step.status = "skipped"
            case _:
                step.status = "failed"

    def _read_completion(self) -> None:
        self.expect("G7", not self.cancelled, "task.completed after an acknowledged cancel")
        for name, step in self.steps.items():
            stored = step.status == "completed" and step.result is not None and not step.result["is_error"]
            self.expect("G7", stored or step.status == "skipped", f"completed without the result of {name}")

    # What follows from what was read.

    def is_its_turn(self, step_id: str) -> bool:
        """Whether the step has not ended, all that it needs is there, and its condition holds."""
        step = self.steps[step_id]
        if step.status not in {"pending", "running"}:
            return False
        if not all(self.steps[name].status == "completed" for name in step.needs):
            return False
        when = step.plan["when"]
        if when is None:
            return True
        reference, _, least = when.partition(" > ")
        try:
            n = self._fill(reference)
        except UnresolvedError:
            return False
        return isinstance(n, int) and n > int(least)

    def arguments(self, step_id: str) -> dict[str, Any]:
        """The step's arguments with every reference filled in. Raises: UnresolvedError."""
        given = self.steps[step_id].plan["arguments"]
        return {name: self._fill(value) if isinstance(value, str) else value for name, value in given.items()}

    def _fill(self, text: str) -> object:
        values = [self._value(*found.groups()) for found in _REFERENCE.finditer(text)]
        if _REFERENCE.fullmatch(text):
            return values[0]
        return _REFERENCE.sub(lambda _: str(values.pop(0)), text)

    def _value(self, name: str, part: str) -> object:
        result = self.steps[name].result
        if result is None:
            raise UnresolvedError(name)
        if part == "text":
            return result["text"]
        if result["output"] is None:
            return None
        if "n" not in result["output"]:
            raise UnresolvedError(name)
        return result["output"]["n"]

    def _asks(self, step_id: str) -> bool:
        plan = self.steps[step_id].plan
        lets_in = plan["tool"] in CHANGING and any(map(self._is_from_outside, self._sources(step_id)))
        lets_out = plan["tool"] in OUTSIDE and any(map(self._is_news_outside, self._sources(step_id)))
        free = not (lets_in or lets_out) or self._approved_beforehand(self.steps[step_id])
        return plan["tool"] in ALWAYS_ASKED or not free

    def _approved_beforehand(self, step: Step) -> bool:
        """Only a person can have approved a call with the plan."""
        return self.by_person and bool(step.plan["preapproved"] or self.covers)

    def _is_news_outside(self, step_id: str) -> bool:
        """Whether its output holds what the world outside has not said itself: what is here, or what a model says."""
        step = self.steps[step_id].plan
        if step["kind"] == "agent" or step["tool"] not in OUTSIDE:
            return True
        return any(map(self._is_news_outside, self._sources(step_id)))

    def _is_from_outside(self, step_id: str) -> bool:
        step = self.steps[step_id].plan
        if OUTSIDE.intersection([step["tool"]] if step["kind"] == "tool" else [tool["tool"] for tool in step["tools"]]):
            return True
        return any(self._is_from_outside(name) for name in self._sources(step_id))

    def _sources(self, step_id: str) -> set[str]:
        return {name for name, _ in _REFERENCE.findall(json.dumps(self.steps[step_id].sources))}


def given(wanted: dict[str, Any]) -> Any:
    """The arguments that a model gave; null where nobody can say what they are."""
    try:
        return json.loads(wanted["arguments"] or "{}")
    except ValueError:
        return None


def _same(one: Any, other: Any) -> bool:
    """The same JSON: `true` is not 1, and null is no arguments."""
    return one is not None and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _digest(contract: dict[str, Any]) -> str:
    """As docs say that a client may compute it: without `asks`, and without what a step leaves unsaid."""
    unsaid: dict[str, dict[str, Any]] = {"tool": {"when": None, "preapproved": False}, "agent": {"when": None}}
    steps = [
        {name: value for name, value in step.items() if (name, value) not in unsaid[step["kind"]].items()}
        for step in contract["steps"]
    ]
    return _digest_of({name: value for name, value in contract.items() if name != "asks"} | {"steps": steps})


def _digest_of(value: Any) -> str:
    return digest_of_bytes(rfc8785.dumps(value))
