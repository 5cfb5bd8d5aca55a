"""The commands that use a service: each calls the client, informs the person, and prints the result."""

import argparse
from collections.abc import Mapping
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.explaining import explain, hint
from agent_runtime.cli.running import COMPLETED, FAILED, ask_for_changes, asked_calls, finish, follow, show_plan
from agent_runtime.cli.service import Service, connect
from agent_runtime.cli.spinner import show_wait
from agent_runtime.client import Task
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.text.escaping import is_blank, one_line


def tasks(options: argparse.Namespace) -> int:
    with connect(options) as service:
        page = service.client.list_tasks(options.status, limit=options.limit)
    if options.json:
        output.document(page)
        return 0
    rows = [
        (task["task_id"], task["status"], one_line(task["prompt"], 80), _time(task["updated_at"]))
        for task in page["tasks"]
    ]
    if rows:
        output.table("", ("Task", "Status", "Prompt", "Updated (UTC)"), rows, whole={"Status"})
    else:
        output.say(f"No task is {options.status} here." if options.status else "There are no tasks here.")
    if page["next_cursor"]:
        output.say(f"There are more; --limit shows up to 200 (now {options.limit}).")
    return 0


def show(options: argparse.Namespace) -> int:
    with connect(options) as service:
        task = service.client.get_task(options.task_id)
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
        *(("Decision", f"{made['decision']} by {made['who']}, {_time(made['when'])}") for made in task["approvals"]),
    ]
    output.table("", ("", ""), facts)
    if task["plan_object"]:
        output.plan_table(task, to_stdout=True)
    if any(step["status"] != "pending" for step in task["steps"]):
        steps = [(step["id"], step["status"], _outcome(step)) for step in task["steps"]]
        output.table("Steps", ("Step", "Status", "Outcome"), steps)
    if task["status"] == "completed":
        output.result(task["result"] or "")
    explain(options, task)
    return 0


def _outcome(step: Mapping[str, Any]) -> str:
    told = step["error"]["message"] if step["error"] else step["output"] or ""
    return f"{told}\n({step['note']})" if step["note"] else str(told)


def _time(text: str | None) -> str:
    return (text or "")[:19].replace("T", " ")


def approve(options: argparse.Namespace) -> int:
    """Approve the plan with the given digest; without one, only revision 1, and only if nobody asked for another.

    A later revision may have replaced the plan that the person has read, or was expected to.
    """
    _check_edit(options)
    with connect(options, resume=True) as service:
        task = service.client.get_task(options.task_id)
        if options.call:
            digest, edited = _digest_of_call(task, options.call), options.arguments
            service.client.approve_call(
                options.task_id, options.call, digest, comment=options.comment, edited_arguments=edited
            )
            return _continue(options, service, f"Approved the call {options.call}.")
        if task["status"] == "awaiting_approval":
            output.plan_table(task)
        first = task["plan_digest"] if task["plan_revision"] == 1 and task["revision_failed"] is None else None
        service.client.approve(options.task_id, options.digest or first, comment=options.comment)
        return _continue(options, service, "Approved.")


def _check_edit(options: argparse.Namespace) -> None:
    """Refuse arguments that belong to no call, or are no object. Raises: InvalidInputError."""
    if options.arguments is None:
        return
    if not options.call:
        raise InvalidInputError([Fault("--arguments", "Name the call to send with them: --call CALL_ID.")])
    if not isinstance(options.arguments, dict):
        raise InvalidInputError([Fault("--arguments", "They must be a JSON object.")])


def _digest_of_call(task: Task, call_id: str) -> str:
    """Return the digest of the arguments of this call. Without a question, the service refuses any with the reason."""
    digests = [entry["arguments_digest"] for entry in asked_calls(task) if entry["call_id"] == call_id]
    return digests[0] if digests else "unknown"


def reject(options: argparse.Namespace) -> int:
    with connect(options, resume=bool(options.call)) as service:
        if options.call:
            digest = _digest_of_call(service.client.get_task(options.task_id), options.call)
            service.client.deny_call(options.task_id, options.call, digest, comment=options.reason)
            return _continue(options, service, f"Denied the call {options.call}.")
        task = service.client.reject(options.task_id, reason=options.reason)
    _report(options, task, f"Rejected. Task {options.task_id} has ended; nothing was run.")
    return 0


def answer(options: argparse.Namespace) -> int:
    """Answer, decline or dismiss a question of a server."""
    with connect(options) as service:
        if options.dismiss:
            service.client.dismiss(options.task_id, options.question)
            return _continue(options, service, f"Dismissed the question {options.question}.")
        content = None if options.decline else options.content or {}
        service.client.answer(options.task_id, options.question, content)
        answered = "Declined" if options.decline else "Answered"
        return _continue(options, service, f"{answered} the question {options.question}.")


def revise(options: argparse.Namespace) -> int:
    """Plan a task again, and show the result. Return 3 while a plan awaits approval, new or not."""
    with connect(options, resume=True) as service:
        asks = options.feedback is None and output.is_person_there()
        feedback = ask_for_changes(service.client) if asks else options.feedback
        if feedback is None or is_blank(feedback):
            raise InvalidInputError([Fault("FEEDBACK", "The feedback is empty: describe the changes.")])
        service.client.revise(options.task_id, feedback)
        task = follow(options, service.client)
        if task["status"] == "awaiting_approval" and task["revision_failed"] is None:
            show_plan(service.client, task)
    return finish(options, task)


def rerun(options: argparse.Namespace) -> int:
    """Run a finished task again, as a new task. Return 3 while its plan awaits approval."""
    with connect(options) as service:
        created = service.client.rerun(options.task_id, "failed_step" if options.from_failed_step else "start")
        options.task_id = created["task_id"]
        task = follow(options, service.client)
        if task["status"] == "awaiting_approval":
            show_plan(service.client, task)
    return finish(options, task, with_id=True)


def cancel(options: argparse.Namespace) -> int:
    """Cancel a task. Return 0 if it is cancelled."""
    with connect(options, resume=True) as service:
        task = service.client.cancel(options.task_id, reason=options.reason)
        if not task.get("terminal", True):  # without the scope `read` the answer has no `terminal`
            task = follow(options, service.client)
    _report(options, task, f"Task {options.task_id} is {task['status']}.")
    return COMPLETED if task["status"] == "cancelled" else FAILED


def resolve(options: argparse.Namespace) -> int:
    with connect(options, resume=True) as service:
        service.client.resolve(
            options.task_id, options.step, options.resolution, output=options.output, comment=options.comment
        )
        return _continue(options, service, f"Resolved step {options.step} as {options.resolution}.")


def _continue(options: argparse.Namespace, service: Service, message: str) -> int:
    """Report a decision. A service in this process must also run the task to its end."""
    if service.here:
        output.say(message)
        return finish(options, follow(options, service.client))
    _report(options, service.client.get_task(options.task_id), f"{message} Follow it: {hint(options, 'watch')}")
    return 0


def watch(options: argparse.Namespace) -> int:
    with connect(options, resume=True) as service:
        return finish(options, follow(options, service.client))


def _report(options: argparse.Namespace, task: Task, message: str) -> None:
    if options.json:
        output.document(task)
    else:
        output.say(message)


def reload(options: argparse.Namespace) -> int:
    with connect(options) as service:
        changes = service.client.reload_tools()
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
        with show_wait("Asking the servers for their tools", enabled=not options.json):
            catalogue = service.client.list_tools(refresh=options.refresh or service.here)
        servers = service.client.list_servers()
    if options.json:
        output.document({"tools": catalogue, "servers": servers})
        return 0
    output.tool_table([tool for tool in catalogue if tool["status"] == "available"])
    missing = [(server["id"], server["detail"]) for server in servers if not server["connected"]]
    missing += [
        (f"{tool['server']}.{tool['tool']}", tool["detail"] or "")
        for tool in catalogue
        if tool["status"] != "available"
    ]
    if missing:
        output.table("Unavailable", ("Server or tool", "Why"), missing)
    return 0
