"""The commands that use a service: each calls the client, informs the person, and prints the result."""

import argparse
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.client import Client, Json, RefusedError
from agent_runtime.cli.explaining import explain, hint, show_call
from agent_runtime.cli.following import WAITING, Follower
from agent_runtime.cli.live_text import LiveText
from agent_runtime.cli.service import Service, connect
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.text.escaping import is_blank, one_line

COMPLETED, FAILED, PERSON_NEEDED = 0, 1, 3
"""Exit codes by the final status of the task."""


def run(options: argparse.Namespace) -> int:
    """Submit a task, show its plan, ask for a decision, and follow the task to its end."""
    prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    if is_blank(prompt):
        raise InvalidInputError([Fault("PROMPT", "The prompt is empty: say what is to be done.")])
    with connect(options) as service:
        task_id = service.client.submit(prompt)["task_id"]
        follower = _make_follower(options, service.client, task_id)
        try:
            task = follower.until_settled()
            while True:
                if task["status"] == "awaiting_approval":
                    _show_plan(service.client, task)
                    decided = _ask(options, service.client, task)
                    if decided is None:
                        return _finish(options, task, with_id=True)
                    if not decided:
                        _finish(options, service.client.task(task_id))
                        return PERSON_NEEDED
                elif not _ask_of_calls(service.client, task):
                    break
                task = follower.until_settled()
        except KeyboardInterrupt:
            output.say(f"Cancelling task {task_id}; press Ctrl-C again to leave it as it is.")
            task = _cancel_and_wait(follower)
        return _finish(options, task, with_id=task["status"] == "needs_attention")


def _make_follower(options: argparse.Namespace, client: Client, task_id: str) -> Follower:
    """Return a follower of the task, which shows what models write unless --json is given."""
    return Follower(client, task_id, LiveText(enabled=not options.json))


def _follow(options: argparse.Namespace, client: Client) -> Json:
    """Follow the task of the command until it ends or waits for a person, and return it."""
    return _make_follower(options, client, options.task_id).until_settled()


def _show_plan(client: Client, task: Mapping[str, Any]) -> None:
    """Print the plan, and the differences from the revision before it."""
    output.plan_table(task)
    revision = task["plan_revision"]
    if revision > 1:
        output.say(client.diff(task["task_id"], revision - 1, revision))


def _ask(options: argparse.Namespace, client: Client, task: Mapping[str, Any]) -> bool | None:
    """Ask for a decision on the plan. Return True if the task continues, False after a rejection, None without one."""
    task_id, digest = task["task_id"], task["plan_digest"]
    if not options.yes:
        if not _somebody_is_there():
            return None
        answer = _answer(digest)
        if answer is None:
            return None
        if answer == "n":
            client.reject(task_id, "rejected at the command line")
            return False
        if answer != "y":
            client.revise(task_id, answer.removeprefix("r "))
            return True
    client.approve(task_id, digest)
    return True


def _ask_of_calls(client: Client, task: Json) -> bool:
    """Ask for a decision on each call of the task that needs one. Return False if there are none, or without a person.

    `--yes` does not answer here: it approved the plan, but nobody has seen the arguments of these calls.
    """
    asked = [entry for entry in task["attention"] if entry["kind"] == "call_approval"]
    if not asked or not _somebody_is_there():
        return False
    for entry in asked:
        show_call(entry)
        while (answer := output.ask("Send this call? [y/n] ")) not in {"y", "yes", "n", "no"}:
            if answer is None:
                output.say("")
                return False
        verb = "approve" if answer.startswith("y") else "deny"
        client.decide_call(task["task_id"], verb, entry, None)
    return True


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _answer(digest: str) -> str | None:
    """Return `y`, `n`, or `r` and the feedback; None without an answer."""
    output.say(f"If you approve it, exactly this plan runs ({digest[:23]}…).")
    while True:
        answer = output.ask("Run this plan? [y/n/r] ")
        if answer is not None and answer.lower() in {"y", "yes", "n", "no"}:
            return answer.lower()[0]
        if answer is not None and answer.lower() in {"r", "revise"}:
            answer = output.ask("What should change? ")
            if answer:
                return f"r {answer}"
        if answer is None:
            output.say("")
            return None


def _cancel_and_wait(follower: Follower) -> Json:
    with suppress(RefusedError):  # the task has ended meanwhile; its status is shown
        follower.client.cancel(follower.task_id, "interrupted at the command line")
    return follower.until_settled()


def tasks(options: argparse.Namespace) -> int:
    with connect(options) as service:
        page = service.client.tasks(options.status, options.limit)
    if options.json:
        output.document(page)
        return 0
    rows = [
        (task["task_id"], task["status"], one_line(task["prompt"], 80), _time(task["updated_at"]))
        for task in page["tasks"]
    ]
    if rows:
        output.table("", ("Task", "Status", "Prompt", "Updated (UTC)"), rows)
    else:
        output.say("There are no tasks here.")
    if page["next_cursor"]:
        output.say(f"There are more; --limit shows up to 200 (now {options.limit}).")
    return 0


def show(options: argparse.Namespace) -> int:
    with connect(options) as service:
        task = service.client.task(options.task_id)
    if options.json:
        output.document(task)
        return 0
    facts = [
        ("Task", task["task_id"]),
        ("Status", task["status"] + (", being cancelled" if task["cancel_requested"] and not task["terminal"] else "")),
        ("Prompt", task["prompt"]),
        ("Submitted", _time(task["created_at"])),
        ("Updated", _time(task["updated_at"])),
        ("Plan digest", task["plan_digest"] or "(no plan yet)"),
        *(
            (f"{made['decision'].capitalize()} by", f"{made['who']}, {_time(made['when'])}")
            for made in task["approvals"]
        ),
    ]
    output.table("", ("", ""), facts)
    if task["plan_object"]:
        output.plan_table(task, to_stdout=True)
    if any(step["status"] != "pending" for step in task["steps"]):
        steps = [(step["id"], step["status"], _outcome(step)) for step in task["steps"]]
        output.table("Steps", ("Step", "Status", "Outcome"), steps)
    if task["status"] == "completed":
        output.result(task["result"])
    explain(options, task)
    return 0


def _outcome(step: Mapping[str, Any]) -> str:
    told = step["error"]["message"] if step["error"] else step["output"] or ""
    return f"{told}\n({step['note']})" if step["note"] else str(told)


def _time(text: str | None) -> str:
    return (text or "")[:19].replace("T", " ")


def approve(options: argparse.Namespace) -> int:
    """Approve the plan with the given digest; without one, only revision 1.

    A later revision may have replaced the plan that the person has read.
    """
    with connect(options, resume=options.task_id) as service:
        task = service.client.task(options.task_id)
        if options.call:
            service.client.decide_call(options.task_id, "approve", _asked_call(task, options.call), options.comment)
            return _continue(options, service, f"Approved the call {options.call}.")
        if task["status"] == "awaiting_approval":
            output.plan_table(task)
        first = task["plan_digest"] if task["plan_revision"] == 1 else None
        service.client.approve(options.task_id, options.digest or first, options.comment)
        return _continue(options, service, "Approved.")


def _asked_call(task: Json, call_id: str) -> Json:
    """Return the question about this call. Without one, the service refuses the decision with the reason."""
    asked: list[Json] = [entry for entry in task["attention"] if entry.get("call_id") == call_id]
    return asked[0] if asked else {"call_id": call_id, "arguments_digest": "unknown"}


def reject(options: argparse.Namespace) -> int:
    with connect(options, resume=options.task_id if options.call else None) as service:
        if options.call:
            asked = _asked_call(service.client.task(options.task_id), options.call)
            service.client.decide_call(options.task_id, "deny", asked, options.reason)
            return _continue(options, service, f"Denied the call {options.call}.")
        task = service.client.reject(options.task_id, options.reason)
    _report(options, task, f"Rejected. Task {options.task_id} has ended; nothing was run.")
    return 0


def answer(options: argparse.Namespace) -> int:
    """Answer or decline a question of a server."""
    with connect(options) as service:
        content = None if options.decline else options.content or {}
        service.client.answer(options.task_id, options.question, content)
        declined = "Declined" if options.decline else "Answered"
        return _continue(options, service, f"{declined} the question {options.question}.")


def revise(options: argparse.Namespace) -> int:
    """Plan a task again, and show the result. Return 3 while the new plan awaits approval."""
    if is_blank(options.feedback):
        raise InvalidInputError([Fault("FEEDBACK", "The feedback is empty: describe the changes.")])
    with connect(options, resume=options.task_id) as service:
        service.client.revise(options.task_id, options.feedback)
        task = _follow(options, service.client)
        if task["status"] == "awaiting_approval":
            _show_plan(service.client, task)
    return _finish(options, task)


def rerun(options: argparse.Namespace) -> int:
    """Run a finished task again, as a new task. Return 3 while its plan awaits approval."""
    with connect(options) as service:
        created = service.client.rerun(options.task_id, "failed_step" if options.from_failed_step else "start")
        options.task_id = created["task_id"]
        task = _follow(options, service.client)
        if task["status"] == "awaiting_approval":
            _show_plan(service.client, task)
    return _finish(options, task, with_id=True)


def cancel(options: argparse.Namespace) -> int:
    """Cancel a task. Return 0 if it is cancelled."""
    with connect(options, resume=options.task_id) as service:
        task = service.client.cancel(options.task_id, options.reason)
        if not task.get("terminal", True):  # without the scope `read` the answer has no `terminal`
            task = _follow(options, service.client)
    _report(options, task, f"Task {options.task_id} is {task['status']}.")
    return COMPLETED if task["status"] == "cancelled" else FAILED


def resolve(options: argparse.Namespace) -> int:
    with connect(options, resume=options.task_id) as service:
        decision = {"step_id": options.step, "resolution": options.resolution, "comment": options.comment}
        service.client.resolve(options.task_id, output=options.output, **decision)
        return _continue(options, service, f"Resolved step {options.step} as {options.resolution}.")


def _continue(options: argparse.Namespace, service: Service, message: str) -> int:
    """Report a decision. A service in this process must also run the task to its end."""
    if service.here:
        output.say(message)
        return _finish(options, _follow(options, service.client))
    _report(options, service.client.task(options.task_id), f"{message} Follow it: {hint(options, 'watch')}")
    return 0


def watch(options: argparse.Namespace) -> int:
    with connect(options, resume=options.task_id) as service:
        return _finish(options, _follow(options, service.client))


def _report(options: argparse.Namespace, task: Json, message: str) -> None:
    if options.json:
        output.document(task)
    else:
        output.say(message)


def _finish(options: argparse.Namespace, task: Json, *, with_id: bool = False) -> int:
    """Print the result of a task, and return its exit code."""
    explain(options, task)
    if options.json:
        output.document(task)
    elif task["status"] == "completed":
        output.result(task["result"])
    elif with_id:
        output.result(task["task_id"])
    if task["status"] in WAITING:
        return PERSON_NEEDED
    return COMPLETED if task["status"] == "completed" else FAILED


def reload(options: argparse.Namespace) -> int:
    with connect(options) as service:
        changes = service.client.reload()
    if options.json:
        output.document(changes)
    elif service.here:
        output.say("No service runs here. The registry has no faults, and is read when one starts.")
    else:
        output.result("\n".join(f"{what}: {', '.join(ids)}" for what, ids in changes.items() if ids) or "unchanged")
    return 0


def tools(options: argparse.Namespace) -> int:
    with connect(options) as service:
        # A service that has just started has not queried any server yet.
        catalogue = service.client.tools(refresh=options.refresh or service.here)
        servers = service.client.servers()
    if options.json:
        output.document({**catalogue, "servers": servers})
        return 0
    offered = [tool for tool in catalogue["tools"] if tool["status"] == "available"]
    rows = [(f"{t['server']}.{t['tool']}", _effect(t), one_line(t["description"] or "", 200)) for t in offered]
    output.table("", ("Tool", "Effect", "What it does"), rows)
    missing = [(server["id"], server["detail"]) for server in servers if not server["connected"]]
    missing += [
        (f"{tool['server']}.{tool['tool']}", tool["detail"] or "")
        for tool in catalogue["tools"]
        if tool["status"] != "available"
    ]
    if missing:
        output.table("Unavailable", ("Server or tool", "Why"), missing)
    return 0


def _effect(tool: Mapping[str, Any]) -> str:
    repeatable = tool["idempotent"] and tool["effect"] != "read"
    return f"{tool['effect']}{', repeatable' if repeatable else ''}"
