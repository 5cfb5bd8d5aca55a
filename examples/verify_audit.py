"""Verifies exports of Agent Runtime with nothing but the standard library of Python (3.11 or newer).

    python verify_audit.py EXPORT.json [HASH]

It computes each hash of the journal anew, holds what the export says against the journal, each plan against its digest,
and each call against the plan that was approved. HASH is the `head` of an earlier export of the task, or any hash of
its journal, that was kept elsewhere: it must still be in the journal.

It prints a line for each thing that is wrong. Exit code 0: there is none; 1: there is one; 2: this is no export.
What it does not check is said in docs/reference/audit-format.md, which describes all that is used here.
"""

import hashlib
import json
import math
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

FORMAT = "agent-runtime-audit/1"
FIRST_HASH = "sha256:" + "0" * 64

PLANS = {"plan.proposed", "plan.edited", "plan.repinned"}
DECISIONS = {
    *("plan.approved", "plan.rejected", "plan.revision_requested", "plan.edited"),
    *("step.resolved", "call.approved", "call.denied", "input.answered"),
}

DECISION_FIELDS = (
    *("revision", "digest", "step_id", "call_id", "resolution", "arguments_digest", "question_id", "action"),
    *("edited_arguments", "edited_digest"),
    *("via", "scopes"),
)
DEFAULT_TENANT = "default"

MOST_PLACES = 21
MOST_ZEROS = 6
"""A number with more places before its point, or as many zeros after it, is written with an exponent."""

SETS = {"enum", "required", "type"}
HOLD_SCHEMAS = {
    *("additionalItems", "additionalProperties", "allOf", "anyOf", "contains", "else", "if", "items", "not", "oneOf"),
    *("prefixItems", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
}
HOLD_NAMED_SCHEMAS = {
    *("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"),
}


def sha256(data: bytes) -> str:
    """Return a digest as an export writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def hash_record(previous: str, task_id: str, record: dict[str, Any]) -> str:
    """Return the hash of a record after one of the hash `previous`: seven texts, each as a netstring."""
    epoch = "" if record["epoch"] is None else str(record["epoch"])
    texts = (previous, task_id, str(record["seq"]), epoch, record["at"], record["type"], record["data"])
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return sha256(b"".join(b"%d:%b," % (len(text), text) for text in encoded))


def write_canonically(value: Any) -> str:
    """Return JSON in the form that digests are made of: RFC 8785, but each integer has all its digits.

    Raises: ValueError for NaN, infinity and what is nested too deeply.
    """
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join([f"{write_canonically(name)}:{write_canonically(value[name])}" for name in names]) + "}"
    if isinstance(value, list):
        return "[" + ",".join([write_canonically(item) for item in value]) + "]"
    if isinstance(value, float):
        return write_number(value)
    return json.dumps(value, ensure_ascii=False)  # a text, an integer, true, false or null


def write_number(value: float) -> str:
    """Return a number that is no integer in JSON as ECMAScript writes it, which is what RFC 8785 asks for."""
    if not math.isfinite(value):
        raise ValueError("JSON has no such number")
    if value == 0:
        return "0"
    _, all_digits, exponent = Decimal(repr(abs(value))).as_tuple()  # the fewest digits that mean this number
    digits = "".join(map(str, all_digits))
    point = len(digits) + int(exponent)
    digits = digits.rstrip("0")
    if len(digits) <= point <= MOST_PLACES:
        text = digits.ljust(point, "0")
    elif 0 < point <= MOST_PLACES:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -MOST_ZEROS < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        text = f"{'.'.join(filter(None, (digits[0], digits[1:])))}e{point - 1:+d}"
    return f"-{text}" if value < 0 else text


def digest(value: Any) -> str | None:
    """Return the digest of a JSON value; None where it has none, as a lone surrogate has no UTF-8."""
    try:
        return sha256(write_canonically(value).encode())
    except (ValueError, RecursionError):
        return None


def form_digested(contract: dict[str, Any]) -> dict[str, Any]:
    """Return a plan as its digest covers it: without `asks`, and without the later fields of steps that say nothing.

    All other fields that say nothing are left out of the journal as well.
    """
    silent: dict[str, dict[str, Any]] = {"tool": {"when": None, "preapproved": False}, "agent": {"when": None}}
    steps = [
        {
            name: value
            for name, value in step.items()
            if name not in silent[step["kind"]] or value is not silent[step["kind"]][name]
        }
        for step in contract["steps"]
    ]
    return {name: value for name, value in contract.items() if name != "asks"} | {"steps": steps}


def sort_sets(schema: Any) -> Any:
    """Return a JSON Schema with the lists sorted that mean sets, without repetitions, as pins cover it."""
    if isinstance(schema, list):
        return [sort_sets(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: _sort_keyword(name, value) for name, value in schema.items()}


def _sort_keyword(name: str, value: Any) -> Any:
    if name in SETS and isinstance(value, list):
        distinct = {write_canonically(item).encode(): item for item in value}
        return [distinct[form] for form in sorted(distinct)]
    if name in HOLD_SCHEMAS:
        return sort_sets(value)
    if name in HOLD_NAMED_SCHEMAS and isinstance(value, dict):
        return {key: sort_sets(item) for key, item in value.items()}
    return value


def pin(definition: dict[str, Any]) -> str | None:
    """Return the pin of a tool's definition, as plans of form 2 have it."""
    try:
        schemas = {name: sort_sets(definition[name]) for name in ("inputSchema", "outputSchema")}
    except (ValueError, RecursionError):
        return None
    return digest({**definition, **schemas})


class Journal:
    """The records of an export, read, and what is wrong with them."""

    def __init__(self, export: Any) -> None:
        self.export = export
        self.task_id: str = export["task_id"]
        self.records: list[dict[str, Any]] = export["journal"]
        self.events: dict[int, dict[str, Any]] = {}
        """The event of each record that can be read, by the number of the record."""

    def verify(self, kept_hash: str | None) -> Iterator[str]:
        """Yield a sentence for each thing that is wrong."""
        try:
            yield from self._verify_hashes(kept_hash)
            yield from self._verify_contents()
        except (LookupError, TypeError, AttributeError) as error:
            yield f"something is of another form than the service writes, and the rest was not verified: {error!r}"

    def _verify_contents(self) -> Iterator[str]:
        for record in self.records:
            try:
                self.events[record["seq"]] = json.loads(record["data"])
            except (ValueError, RecursionError):
                yield f"record {record['seq']}: its data is no JSON."
        yield from self._verify_work()
        yield from self._verify_approvals()
        yield from self._verify_calls()

    def of(self, *types: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each record of these types, with its event."""
        for record in self.records:
            if record["type"] in types and record["seq"] in self.events:
                yield record, self.events[record["seq"]]

    def _verify_hashes(self, kept_hash: str | None) -> Iterator[str]:
        previous = FIRST_HASH
        for number, record in enumerate(self.records, 1):
            if record["seq"] != number:
                yield f"record {record['seq']}: it stands in the place of record {number}."
            if record["hash"] != hash_record(previous, self.task_id, record):
                yield f"record {record['seq']}: its hash is another: it, or what comes before it, was changed."
            previous = record["hash"]
        index = self.export["index"] or {"version": None, "head": None}
        if index["version"] != len(self.records):
            yield f"index.version: it is {index['version']}, and there are {len(self.records)} records."
        if not previous == index["head"] == self.export["head"]:
            yield "head: it is not the hash of the last record."
        if kept_hash is not None and kept_hash not in [record["hash"] for record in self.records]:
            yield "the hash that was kept is not in the journal: the history was written anew, or cut."

    def _verify_work(self) -> Iterator[str]:
        """Hold each plan against its digest, and each call against the plan that was approved last."""
        newest: dict[str, Any] = {}
        approved: set[str] = set()
        edited: dict[str, str] = {}
        for record, event in self.of(*PLANS, "plan.approved", "call.approved", "tool.called"):
            place = f"record {record['seq']}"
            if record["type"] == "tool.called":
                yield from (f"{place}: {why}" for why in find_call_faults(event, newest, approved, edited))
            elif record["type"] == "call.approved":
                if digest(event.get("edited_arguments")) != event.get("edited_digest", digest(None)):
                    yield f"{place}: the digest is not that of the edited arguments."
                if "edited_digest" in event:
                    edited[event["step_id"]] = event["edited_digest"]
            elif record["type"] == "plan.approved":
                approved.add(event["digest"])
            else:
                newest, edited = event, {}
                yield from (f"{place}: {why}" for why in find_plan_faults(event))
        plan = form_digested(newest["contract"]) if newest else None
        if not same(self.export["plan"], plan) or self.export["plan_digest"] != newest.get("digest"):
            yield "plan, plan_digest: they are not the newest plan of the journal."
        if self.export["plan_revision"] != newest.get("revision", 0):
            yield "plan_revision: it is not that of the newest plan of the journal."
        submitted = [event["prompt"] for _, event in self.of("task.submitted")]
        if [self.export["prompt"]] != submitted or (self.export["index"] or {}).get("prompt") != submitted[0]:
            yield "prompt: it is not what was submitted."

    def _verify_approvals(self) -> Iterator[str]:
        expected = [describe_decision(record, event) for record, event in self.of(*DECISIONS)]
        yield from self._compare("approvals", expected)

    def _verify_calls(self) -> Iterator[str]:
        returned: dict[str, int] = {}
        for record, event in self.of("tool.returned"):
            returned.setdefault(event["call_id"], record["seq"])
        expected = []
        for record, event in self.of("tool.called"):
            said = {name: value for name, value in event.items() if name != "timeout_s"}
            place = {"seq": record["seq"], "at": record["at"], "returned_seq": returned.get(event["call_id"])}
            expected.append({**said, **place})
        yield from self._compare("calls", expected)

    def _compare(self, name: str, expected: list[dict[str, Any]]) -> Iterator[str]:
        found = self.export[name]
        if len(found) != len(expected):
            yield f"{name}: there are {len(found)}, and {len(expected)} in the journal."
            return
        for number, (entry, wanted) in enumerate(zip(found, expected, strict=True)):
            if not same(entry, wanted):
                yield f"{name}[{number}]: record {wanted['seq']} says something else."


def describe_decision(record: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of `approvals` as the export has it."""
    comment = event.get("comment", event.get("reason", event.get("feedback")))
    entry = {"seq": record["seq"], "at": record["at"], "decision": record["type"], "actor": event["actor"]}
    said = {name: event[name] for name in DECISION_FIELDS if name in event}
    tenant = {"tenant": event.get("tenant", DEFAULT_TENANT)} if "via" in event else {}
    return {**entry, "comment": comment, **said, **tenant}


def find_plan_faults(event: dict[str, Any]) -> Iterator[str]:
    """Yield what in a plan has not its digest: all of it, the definitions of its tools, the facts of its servers."""
    contract = event["contract"]
    if digest(form_digested(contract)) != event["digest"]:
        yield "the digest is not that of the plan."
    if contract.get("form", 1) == 1:
        return  # its pins also cover what the journal does not hold
    for key, definition in event["definitions"].items():
        if contract["pins"].get(key) != pin(definition):
            yield f"{key} is not the definition that the plan has pinned."
    for server, facts in event.get("identities", {}).items():
        if contract["servers"].get(server) != digest(facts):
            yield f"{server} is not the server that the plan was made for."


def find_call_faults(
    event: dict[str, Any], newest: dict[str, Any], approved: set[str], edited: dict[str, str]
) -> Iterator[str]:
    """Yield what in a call is not as the newest plan, which must be approved, has it.

    `edited`: the digests of the arguments that a person put in place of the plan's, by step.
    """
    if digest(event["arguments"]) != event["arguments_digest"]:
        yield "the digest is not that of the arguments."
    if newest.get("digest") not in approved:
        yield "the call was made without an approved plan."
        return
    step = next((step for step in newest["contract"]["steps"] if step["id"] == event["step_id"]), None)
    if step is None:
        yield f"the approved plan has no step {event['step_id']}."
        return
    tools = [step] if step["kind"] == "tool" else step["tools"]
    if (event["server"], event["tool"]) not in [(tool["server"], tool["tool"]) for tool in tools]:
        yield f"the approved step does not call {event['server']}/{event['tool']}."
    elif step["kind"] == "tool" and step["id"] in edited:
        if event["arguments_digest"] != edited[step["id"]]:
            yield "the arguments are not those that a person put in place of the plan's."
    elif step["kind"] == "tool" and not has_references(step) and digest(step["arguments"]) != event["arguments_digest"]:
        yield "the arguments are not those of the approved step."


def has_references(step: dict[str, Any]) -> bool:
    """Return whether the arguments of a step take up what other steps gave, so that they are known at the call only."""
    return "${" in json.dumps(step["arguments"])


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same; to Python alone, true is 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def read_journal(text: str) -> Journal:
    """Return the journal of an export. Raises: ValueError where it is none."""
    export = json.loads(text)
    if not isinstance(export, dict) or export.get("format") != FORMAT:
        raise ValueError(f"its format is not {FORMAT}")
    kinds: dict[str, Any] = {"seq": int, "epoch": (int, type(None)), "at": str, "type": str, "data": str, "hash": str}
    for record in export["journal"]:
        if {name: isinstance(record[name], kind) for name, kind in kinds.items()} != dict.fromkeys(record, True):
            raise ValueError("a record is not one")
    return Journal(export)


def main(arguments: list[str]) -> int:
    """Verify the export that the command line names."""
    if len(arguments) not in {1, 2}:
        print("usage: python verify_audit.py EXPORT.json [HASH]", file=sys.stderr)
        return 2
    kept_hash = arguments[1] if len(arguments) > 1 else None
    try:
        journal = read_journal(Path(arguments[0]).read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        print(f"{arguments[0]} is no export that can be read: {error!r}", file=sys.stderr)
        return 2
    found = [*journal.verify(kept_hash)]
    for fault in found:
        print(ascii(fault)[1:-1])
    print(f"{len(journal.records)} records: {len(found) or 'nothing'} wrong.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
