"""The outside world, and the judge of G2, G4, G5 and G7.

The judge sees the calls that reach the servers, and the journal as any client can read it: names, numbers and JSON. It
has its own implementation of the guarantees and uses none of the core's: no folds, transition table, rules or commands.
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

END_EVENTS = frozenset({"task.completed", "task.failed", "task.cancelled", "task.expired", "plan.rejected"})
RUN_EVENTS = frozenset(
    {
        "task.claimed",
        "task.waiting",
        "task.completed",
        "task.failed",
        "call.approval_requested",
        "input.requested",
        "input.withdrawn",
        "budget.exceeded",
        "plan.revision_failed",
    }
)
_REFERENCE = re.compile(r"\$\{(\w+)\.(text|output\.n)\}")


class UnresolvedReferenceError(Exception):
    """A reference has no value."""


@dataclass
class ObservedStep:
    """The state of a step according to the journal."""

    plan: dict[str, Any]
    status: str = "pending"
    use: int = 0
    """The number of the approved use: it grows whenever a person resolves an unknown outcome with `retry`."""
    call_id: str | None = None
    result: dict[str, Any] | None = None
    """The result of its latest call; for an agent step, the last answer of its model."""
    approved_arguments: dict[str, Any] | None = None
    """The arguments that a person has approved."""
    requested_arguments: dict[str, Any] | None = None
    edited_arguments: dict[str, Any] | None = None
    """The arguments that a person put in place of the plan's or the model's."""
    question: str | None = None
    """The id of the server's open question in the call."""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """The answers of its model."""
    settled_calls: int = 0
    """The number of calls in the latest answer that are settled."""
    begun_calls: list[tuple[str, int | None, int | None]] = field(default_factory=list)
    """The calls of an agent so far: tool, turn and index."""

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
    def pending_call(self) -> dict[str, Any] | None:
        """The call that the model waits for, or None."""
        calls = self.turns[-1]["calls"] if self.turns else []
        return calls[self.settled_calls] if self.settled_calls < len(calls) else None

    def settle_call(self) -> None:
        """Settle the pending call. Another call needs another proposal of the model."""
        self.settled_calls += 1
        self.status, self.call_id, self.approved_arguments, self.requested_arguments = "running", None, None, None
        self.edited_arguments = None


@dataclass
class World:
    """The servers, which count calls, and the judge, who reads the journal."""

    breaches: list[str] = field(default_factory=list)
    sent: Counter[tuple[str, int | None, int | None, int]] = field(default_factory=Counter)
    """How often each call reached a server, by step, turn, index and approved use."""
    intents: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    """The written intents by call id: approved use and data."""
    received: set[str] = field(default_factory=set)
    epoch: int = 0
    revision: int = 0
    digest: str = ""
    approved_digest: str | None = None
    """The digest of the approved plan."""
    approved_by_person: bool = False
    """A person approved it, not the operator's policy."""
    open_for_decision: bool = False
    was_sent_back: bool = False
    """A person asked for another plan than the current one, and there is none yet."""
    covers_data: bool = False
    """The approval of the plan covers calls that need approval because of their data."""
    authors: set[str] = field(default_factory=set)
    """Everybody who shaped what is to be approved."""
    reviser: str | None = None
    """Who asked for another plan, until there is one, or it is known that there will be none."""
    has_begun: bool = False
    """A step was started."""
    waits: int = 0
    """How often the task has waited for the end of an outage."""
    cancel_requested: bool = False
    end_event: str | None = None
    steps: dict[str, ObservedStep] = field(default_factory=dict)

    def report(self, guarantee: str, what: str) -> None:
        self.breaches.append(f"{guarantee}: {what}")

    def check(self, guarantee: str, holds: object, what: str) -> None:
        if not holds:
            self.report(guarantee, what)

    # The servers.

    def receive(self, call: ToolCalled) -> None:
        """Receive a call as its server."""
        self.check("G4", self.approved_digest, f"{call.call_id} was sent, and no plan is approved")
        self.check("G7", not self.cancel_requested, f"{call.call_id} was sent after an acknowledged cancel")
        self.check("G2", call.call_id not in self.received, f"{call.call_id} was sent twice")
        self.received.add(call.call_id)
        if call.call_id not in self.intents:
            self.report("G2", f"{call.call_id} was sent, and its intent is not written")
            return
        use, written = self.intents[call.call_id]
        self.check("G5", written == json.loads(call.model_dump_json()), f"{call.call_id} is not what was written")
        if call.step_id not in self.steps:
            return  # a breach of G5 that was reported when the intent was written
        plan = self.steps[call.step_id].plan
        renewed = self.waits + 1  # after each wait for the end of an outage, the repetitions begin again
        most = renewed * max(3, plan.get("retries", 0) + 1) if plan.get("tool", call.tool) in IDEMPOTENT else 1
        this = call.step_id, call.turn, call.index, use
        self.sent[this] += 1
        times = self.sent[this]
        self.check("G2", times <= most, f"{call.step_id} was sent {times} times for one approved use")

    def receive_question(self, step_id: str, turn: int, epoch: int) -> None:
        """Receive a request as the model. A run that does not know that it is superseded may repeat one."""
        self.check("G4", self.approved_digest, f"the model of {step_id} was asked, and no plan is approved")
        if epoch == self.epoch:
            known = len(self.steps[step_id].turns)
            self.check("G2", turn > known, f"the model of {step_id} was asked for turn {turn} once more")

    # The judge, who reads the journal.

    def read(self, record: EventRecord) -> None:
        """Read one more acknowledged record."""
        kind, data = record.type, json.loads(record.data)
        self.check("G7", not self.end_event, f"{kind} follows {self.end_event}")
        if kind == "tool.returned" and record.epoch is not None and record.epoch < self.epoch:
            return  # a late answer to a superseded run
        self._read_epoch(record)
        self._read_author(kind, data)
        step = self.steps.get(data.get("step_id") or "")
        if kind.startswith("plan."):
            self._read_plan(kind, data)
        elif kind == "tool.called":
            self._read_call(data, step)
        elif step is not None:
            self._read_step(kind, data, step)
        self.waits += kind == "task.waiting"
        if kind == "task.cancel_requested":
            self.cancel_requested = True
        if kind == "task.completed":
            self._read_completion()
        if kind in END_EVENTS:
            self.end_event = kind

    def _read_epoch(self, record: EventRecord) -> None:
        of_a_run = record.type in RUN_EVENTS or record.type.startswith(("step.", "tool."))
        if record.type == "task.failed" and record.epoch is None:
            of_a_run = not self.open_for_decision  # otherwise the service ends a plan that cannot be approved any more
        if record.type == "task.claimed":
            self.check("G2", record.epoch == self.epoch + 1, "a claim does not have the next epoch")
            self.epoch = record.epoch or 0
        elif record.epoch is not None or (of_a_run and record.type != "step.resolved"):
            self.check("G2", record.epoch == self.epoch, f"{record.type} by a superseded run")

    def _read_author(self, kind: str, data: dict[str, Any]) -> None:
        """Check that nobody approves their own work without the scope `submit`."""
        if kind in {"plan.approved", "call.approved"} and data["actor"] in self.authors and "scopes" in data:
            both = {"submit", "admin"}.intersection(data["scopes"])
            self.check("G4", both, f"{kind} by its author {data['actor']}")
        told_a_model = kind == "call.denied" and data["comment"] and self.steps[data["step_id"]].is_agent
        if kind == "plan.proposed" and self.reviser:
            self.authors.add(self.reviser)
        if kind.startswith("plan."):
            self.reviser = data["actor"] if kind == "plan.revision_requested" else None
        shaped = kind in {"task.submitted", "plan.edited"} or told_a_model
        gave = kind == "step.resolved" and data["output"] is not None
        if shaped or gave or (kind == "input.answered" and data["content"] is not None):
            self.authors.add(data["actor"])

    def _read_plan(self, kind: str, data: dict[str, Any]) -> None:
        if kind in {"plan.proposed", "plan.edited"}:
            self.check("G4", self.approved_digest is None, "the approved plan was changed")
            self.check("G4", data["revision"] == self.revision + 1, "a plan that is not the next revision")
            self.check("G4", data["digest"] == _contract_digest(data["contract"]), "a plan under another plan's digest")
            self.revision, self.digest, self.open_for_decision = data["revision"], data["digest"], True
            self.covers_data = data["contract"].get("covers_data", False)
            self.steps = {step["id"]: ObservedStep(step) for step in data["contract"]["steps"]}
            return
        if kind == "plan.repinned":
            self._read_repinned(data)
            return
        if kind == "plan.revision_failed":
            same = (data["revision"], data["digest"]) == (self.revision, self.digest)
            self.check(
                "G4", same and self.was_sent_back, "another plan than the one that was sent back awaits approval"
            )
            self.open_for_decision, self.was_sent_back = True, False
            return
        current = self.open_for_decision and (data["revision"], data["digest"]) == (self.revision, self.digest)
        self.check("G4", current, f"{kind} of a plan that does not await a decision")
        if kind == "plan.approved":
            self.check("G4", self.approved_digest is None, "a second approval")
            self.approved_digest, self.approved_by_person = data["digest"], data["actor"] != "policy"
        self.open_for_decision, self.was_sent_back = False, kind == "plan.revision_requested"

    def _read_repinned(self, data: dict[str, Any]) -> None:
        """Read the same plan for other servers, which makes its approval void."""
        self.check("G4", not self.has_begun, "the plan was repinned after a step had started")
        self.check("G4", data["revision"] == self.revision + 1, "a plan that is not the next revision")
        self.check("G4", data["digest"] == _contract_digest(data["contract"]), "a plan under another plan's digest")
        same = [step.plan for step in self.steps.values()] == data["contract"]["steps"]
        self.check("G4", same, "a plan was repinned with other steps")
        self.revision, self.digest, self.open_for_decision = data["revision"], data["digest"], True
        self.approved_digest = None
        self.steps = {step["id"]: ObservedStep(step) for step in data["contract"]["steps"]}

    def _read_call(self, data: dict[str, Any], step: ObservedStep | None) -> None:
        self.check(
            "G4", self.approved_digest and self.approved_digest == self.digest, "a call of a plan that is not approved"
        )
        self.check("G7", not self.cancel_requested, f"{data['call_id']} began after an acknowledged cancel")
        if step is None:
            self.report("G5", f"a call of {data['step_id']}, which is not in the plan")
            return
        self.check("G5", self.is_its_turn(data["step_id"]), f"{data['step_id']} was called out of its turn")
        if step.is_agent:
            self._read_call_of_model(data, step)
            free = data["tool"] not in CHANGING | OUTSIDE or self._is_preapproved(step)
            asks = data["tool"] in ALWAYS_ASKED or not free
        else:
            self._read_call_of_plan(data, step)
            asks = self._needs_approval(data["step_id"])
        if asks:
            approved = _is_same_json(step.approved_arguments, data["arguments"])
            self.check("G4", approved, f"nobody has approved what {data['step_id']} sends")
        step.call_id, step.result = data["call_id"], None
        self.intents[data["call_id"]] = step.use, data

    def _read_call_of_plan(self, data: dict[str, Any], step: ObservedStep) -> None:
        same = all(step.plan[name] == data[name] for name in ("server", "tool"))
        self.check("G5", same, f"{data['step_id']} calls another tool")
        try:
            expected = step.edited_arguments or self.resolve_arguments(data["step_id"])
            same = _is_same_json(expected, data["arguments"])
            self.check("G5", same, "other arguments than the plan's")
        except UnresolvedReferenceError:
            self.report("G5", f"{data['step_id']} was called, and its arguments do not exist")

    def _read_call_of_model(self, data: dict[str, Any], step: ObservedStep) -> None:
        self._check_pending_call(data, step)
        this = data["tool"], data.get("turn"), data.get("index")
        if this not in step.begun_calls:
            most = {tool["tool"]: tool["max_calls"] for tool in step.plan["tools"]}.get(data["tool"], 0)
            times = [tool for tool, *_ in step.begun_calls].count(data["tool"]) + 1
            self.check("G5", times <= most, f"{data['tool']} was called {times} times for {data['step_id']}")
            step.begun_calls.append(this)

    def _check_pending_call(self, data: dict[str, Any], step: ObservedStep) -> None:
        """Check that a call is exactly the one that the model waits for, of a tool that the step lists."""
        place = f"call {data.get('index')} of turn {data.get('turn')} of {data['step_id']}"
        pending = step.pending_call
        if pending is None or (data.get("turn"), data.get("index")) != (len(step.turns), step.settled_calls):
            self.report("G5", f"{place} is not what the model waits for")
            return
        listed = {f"{tool['server']}__{tool['tool']}": (tool["server"], tool["tool"]) for tool in step.plan["tools"]}
        same = listed.get(pending["name"]) == (data["server"], data["tool"])
        self.check("G5", same, f"{place} is of another tool, or of an unlisted one")
        self.check(
            "G5",
            _is_same_json(step.edited_arguments or parse_arguments(pending), data["arguments"]),
            f"{place} has other arguments than the model's",
        )

    def _read_answer(self, data: dict[str, Any], step: ObservedStep) -> None:
        turn, last = data["turn"], step.turns[-1] if step.turns else None
        self.check("G2", turn == len(step.turns) + 1, f"turn {turn} of {data['step_id']} is not the next one")
        self.check("G5", turn <= step.plan["max_turns"], f"turn {turn} of {data['step_id']} is over the limit")
        expected = step.status == "running" and step.pending_call is None and not (last and last["answer"])
        self.check("G5", expected, f"the model of {data['step_id']} has not been asked")
        self.check(
            "G7",
            bool(data["calls"]) != bool(data["answer"]),
            f"turn {turn} of {data['step_id']} has both calls and an answer, or neither",
        )
        step.turns.append(data)
        step.settled_calls = 0

    def _read_step(self, kind: str, data: dict[str, Any], step: ObservedStep) -> None:
        match kind:
            case "step.started":
                step.status, self.has_begun = "running", True
            case "model.answered":
                self._read_answer(data, step)
            case "input.requested" | "input.answered" | "input.withdrawn":
                self._read_question(kind, data, step)
            case "tool.returned" if data["call_id"] == step.call_id and step.is_agent:
                step.question = None
                if not self._met_outage(data):
                    step.settle_call()
            case "tool.denied" if data.get("turn") is not None:
                place = data["turn"], data["index"]
                self.check(
                    "G5",
                    place == (len(step.turns), step.settled_calls),
                    "a refusal of a call that the model does not wait for",
                )
                step.settle_call()
            case "tool.returned" if data["call_id"] == step.call_id:
                step.question = None
                step.result = data["result"]
            case "step.completed" | "step.failed" | "step.skipped":
                step.status = kind.removeprefix("step.")
                if step.is_agent:
                    step.result = step.turns[-1]["answer"] if step.turns else None
                    done = step.result or kind != "step.completed"
                    self.check("G7", done, f"{data['step_id']} completed without an answer of its model")
            case "call.approval_requested":
                self.check("G7", not self.cancel_requested, f"a person is asked about {data['step_id']} after a cancel")
                if step.is_agent:
                    self._check_pending_call(data, step)
                step.status, step.requested_arguments = "asking", data["arguments"]
            case "call.approved":
                same = step.status == "asking" and data["arguments_digest"] == _digest_of(step.requested_arguments)
                self.check("G4", same, "another call was approved than the requested one")
                self._read_edit(data, step)
                step.status, step.approved_arguments = (
                    "running" if step.is_agent else "pending",
                    data.get("edited_arguments") or step.requested_arguments,
                )
            case "call.denied" if step.is_agent:
                step.settle_call()
            case "call.denied":
                step.status = "failed"
            case "step.outcome_unknown":
                step.status, step.question = "unknown", None
            case "step.resolved":
                self._read_resolution(data, step)

    def _read_edit(self, data: dict[str, Any], step: ObservedStep) -> None:
        if "edited_arguments" not in data:
            return
        scopes = set(data.get("scopes", ()))
        both = "admin" in scopes or {"submit", "approve"} <= scopes
        self.check("G4", both, f"{data['actor']} edited the arguments of a call, and may not")
        same = data["edited_digest"] == _digest_of(data["edited_arguments"])
        self.check("G4", same, "edited arguments under the digest of others")
        step.edited_arguments = data["edited_arguments"]
        self.authors.add(data["actor"])

    def _met_outage(self, data: dict[str, Any]) -> bool:
        """Return whether a result says that the call is repeated after an outage, which no model is told."""
        tool = self.intents[data["call_id"]][1]["tool"]
        return data["result"].get("retry_after_s") is not None and tool in IDEMPOTENT

    def _read_question(self, kind: str, data: dict[str, Any], step: ObservedStep) -> None:
        if kind == "input.requested":
            open_ = step.status == "running" and data["call_id"] == step.call_id and step.result is None
            self.check("G5", open_ and step.question is None, "a question in no open call, or beside another one")
            self.check("G7", not self.cancel_requested, f"a person is asked in {data['step_id']} after a cancel")
            step.question = data["question_id"]
            return
        self.check("G4", step.question == data["question_id"], f"{kind} of a question that nobody asks")
        self.check(
            "G7", kind == "input.withdrawn" or not self.cancel_requested, "a question was answered after a cancel"
        )
        step.question = None

    def _read_resolution(self, data: dict[str, Any], step: ObservedStep) -> None:
        asked = step.status == "unknown" and data["call_id"] == step.call_id
        self.check("G2", asked, "a person resolved a call whose outcome is not unknown")
        match data["resolution"]:
            case "retry":
                step.status = "running" if step.is_agent else "pending"
                step.use, step.approved_arguments = step.use + 1, None
            case "done" if step.is_agent:
                step.settle_call()
            case "done":
                text = "" if data["output"] is None else json.dumps(data["output"], separators=(",", ":"))
                step.status, step.result = "completed", {"text": text, "output": data["output"], "is_error": False}
            case "skip":
                step.status = "skipped"
            case _:
                step.status = "failed"

    def _read_completion(self) -> None:
        self.check("G7", not self.cancel_requested, "task.completed after an acknowledged cancel")
        for name, step in self.steps.items():
            stored = step.status == "completed" and step.result is not None and not step.result["is_error"]
            self.check("G7", stored or step.status == "skipped", f"completed without the result of {name}")

    # Conclusions from the journal.

    def is_its_turn(self, step_id: str) -> bool:
        """Return whether the step has not ended, the steps that it needs have completed, and its condition holds."""
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
            n = self._resolve(reference)
        except UnresolvedReferenceError:
            return False
        return isinstance(n, int) and n > int(least)

    def resolve_arguments(self, step_id: str) -> dict[str, Any]:
        """Return the step's arguments with all references resolved. Raises: UnresolvedReferenceError."""
        given = self.steps[step_id].plan["arguments"]
        return {name: self._resolve(value) if isinstance(value, str) else value for name, value in given.items()}

    def _resolve(self, text: str) -> object:
        values = [self._look_up(*found.groups()) for found in _REFERENCE.finditer(text)]
        if _REFERENCE.fullmatch(text):
            return values[0]
        return _REFERENCE.sub(lambda _: str(values.pop(0)), text)

    def _look_up(self, name: str, part: str) -> object:
        result = self.steps[name].result
        if result is None:
            raise UnresolvedReferenceError(name)
        if part == "text":
            return result["text"]
        if result["output"] is None:
            return None
        if "n" not in result["output"]:
            raise UnresolvedReferenceError(name)
        return result["output"]["n"]

    def _needs_approval(self, step_id: str) -> bool:
        plan = self.steps[step_id].plan
        lets_in = plan["tool"] in CHANGING and any(map(self._is_from_outside, self._sources(step_id)))
        lets_out = plan["tool"] in OUTSIDE and any(map(self._would_leak, self._sources(step_id)))
        free = not (lets_in or lets_out) or self._is_preapproved(self.steps[step_id])
        return plan["tool"] in ALWAYS_ASKED or not free

    def _is_preapproved(self, step: ObservedStep) -> bool:
        """Return whether a person's approval of the plan covers the calls of this step."""
        return self.approved_by_person and bool(step.plan["preapproved"] or self.covers_data)

    def _would_leak(self, step_id: str) -> bool:
        """Return whether a step's output contains data from here or from a model, which would leak if sent outside."""
        step = self.steps[step_id].plan
        if step["kind"] == "agent" or step["tool"] not in OUTSIDE:
            return True
        return any(map(self._would_leak, self._sources(step_id)))

    def _is_from_outside(self, step_id: str) -> bool:
        step = self.steps[step_id].plan
        if OUTSIDE.intersection([step["tool"]] if step["kind"] == "tool" else [tool["tool"] for tool in step["tools"]]):
            return True
        return any(self._is_from_outside(name) for name in self._sources(step_id))

    def _sources(self, step_id: str) -> set[str]:
        return {name for name, _ in _REFERENCE.findall(json.dumps(self.steps[step_id].sources))}


def parse_arguments(pending: dict[str, Any]) -> Any:
    """Parse the arguments that a model gave; None if they are malformed."""
    try:
        return json.loads(pending["arguments"] or "{}")
    except ValueError:
        return None


def _is_same_json(one: Any, other: Any) -> bool:
    """Return whether both are the same JSON. `true` differs from 1; None never matches."""
    return one is not None and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _contract_digest(contract: dict[str, Any]) -> str:
    """Compute the digest as documented for clients: without `asks` and newer fields that have their default."""
    defaults: dict[str, dict[str, Any]] = {"tool": {"when": None, "preapproved": False}, "agent": {"when": None}}
    steps = [
        {name: value for name, value in step.items() if (name, value) not in defaults[step["kind"]].items()}
        for step in contract["steps"]
    ]
    return _digest_of({name: value for name, value in contract.items() if name != "asks"} | {"steps": steps})


def _digest_of(value: Any) -> str:
    return digest_of_bytes(rfc8785.dumps(value))
