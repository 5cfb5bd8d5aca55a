"""Carrying a task through: submit it, show its plan, ask for decisions, and follow it to its end."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.explaining import explain, show_call
from agent_runtime.cli.following import WAITING, Follower
from agent_runtime.cli.live_text import LiveText
from agent_runtime.cli.plan_files import read_plan
from agent_runtime.cli.service import connect
from agent_runtime.cli.spinner import Spinner
from agent_runtime.client import ApiError, CallQuestion, Client, ForbiddenError, InvalidRequestError, Task
from agent_runtime.domain.errors import Fault, InvalidInputError
from agent_runtime.text.escaping import is_blank

COMPLETED, FAILED, PERSON_NEEDED = 0, 1, 3
"""Exit codes by the final status of the task."""


def run(options: argparse.Namespace) -> int:
    """Submit a task, in words or with a ready-made plan, and carry it through to its end."""
    plan = read_plan(options.plan) if options.plan else None
    if plan is not None:
        prompt = str(plan.get("goal") or f"Carry out the plan in {options.plan}")
    else:
        prompt = sys.stdin.read() if options.prompt == "-" else options.prompt
    if is_blank(prompt):
        raise InvalidInputError([Fault("PROMPT", "The prompt is empty: say what is to be done.")])
    with connect(options, creates=True) as service, name_faults("plan.", f"{options.plan}: "):
        return carry_through(options, service.client, prompt, plan)


@contextmanager
def name_faults(place: str, typed: str) -> Iterator[None]:
    """Name the faults of a request by what the person has typed, in place of a place in the request.

    Raises: InvalidInputError in place of InvalidRequestError.
    """
    try:
        yield
    except InvalidRequestError as error:
        if not any(fault.field.startswith(place) for fault in error.errors):
            raise
        faults = [Fault(_rename(fault.field, place, typed), fault.message) for fault in error.errors]
        raise InvalidInputError(faults) from error


def _rename(field: str, place: str, typed: str) -> str:
    return f"{typed}{field.removeprefix(place)}" if field.startswith(place) else field


def carry_through(
    options: argparse.Namespace, client: Client, prompt: str, plan: Mapping[str, Any] | None = None
) -> int:
    """Submit a task, show its plan, ask for a decision, and follow it to its end. Return the exit code."""
    options.task_id = task_id = client.submit(prompt, plan=plan)["task_id"]
    follower = _make_follower(options, client, task_id)
    try:
        task = follower.until_settled()
        while True:
            if task["status"] == "awaiting_approval":
                show_plan(client, task)
                decided = _ask(options, client, task)
                if decided is None:
                    return finish(options, task, with_id=True)
                if not decided:
                    finish(options, client.get_task(task_id))
                    return PERSON_NEEDED
            elif not _ask_of_calls(client, task):
                break
            task = follower.until_settled()
    except KeyboardInterrupt:
        output.say(f"Cancelling task {task_id}; press Ctrl-C again to leave it as it is.")
        task = _cancel_and_wait(follower)
    return finish(options, task, with_id=task["status"] == "needs_attention")


def _make_follower(options: argparse.Namespace, client: Client, task_id: str) -> Follower:
    """Return a follower of the task, which shows what models write unless --json is given."""
    shown = not options.json
    return Follower(client, task_id, LiveText(enabled=shown), Spinner(enabled=shown))


def follow(options: argparse.Namespace, client: Client) -> Task:
    """Follow the task of the command until it ends or waits for a person, and return it."""
    return _make_follower(options, client, options.task_id).until_settled()


def show_plan(client: Client, task: Mapping[str, Any]) -> None:
    """Print the plan, and the differences from the revision before it."""
    output.plan_table(task)
    revision = task["plan_revision"]
    if revision > 1:
        output.say(client.compare_revisions(task["task_id"], revision - 1, revision)["text"])


def _ask(options: argparse.Namespace, client: Client, task: Mapping[str, Any]) -> bool | None:
    """Ask for a decision on the plan. Return True if the task continues, False after a rejection, None without one."""
    task_id, digest = task["task_id"], task["plan_digest"]
    answer: str | None = "y"
    if not options.yes:
        answer = _answer(client, digest) if output.is_person_there() else None
    if answer is None:
        return None
    try:
        if answer == "y":
            client.approve(task_id, digest)
        elif answer == "n":
            client.reject(task_id, reason="rejected at the command line")
        else:
            client.revise(task_id, answer.removeprefix("r "))
    except ForbiddenError as error:  # the task is there, and somebody else may decide
        output.say(f"agent-runtime: {error}")
        return None
    return answer != "n"


def _ask_of_calls(client: Client, task: Task) -> bool:
    """Ask for a decision on each call of the task that needs one. Return False if there are none, or without a person.

    `--yes` does not answer here: it approved the plan, but nobody has seen the arguments of these calls.
    """
    asked = [entry for entry in asked_calls(task) if entry["kind"] == "call_approval"]
    if not asked or not output.is_person_there():
        return False
    for entry in asked:
        show_call(entry)
        approved = output.ask_yes_or_no("Send this call?")
        if approved is None:
            output.say("")
            return False
        decide = client.approve_call if approved else client.deny_call
        decide(task["task_id"], entry["call_id"], entry["arguments_digest"])
    return True


def asked_calls(task: Task) -> list[CallQuestion]:
    """Return the calls of the task that a person must decide on."""
    return [entry for entry in task["attention"] if entry["kind"] in {"call_approval", "outcome_unknown"}]


def _answer(client: Client, digest: str) -> str | None:
    """Return `y`, `n`, or `r` and the feedback; None without an answer."""
    output.say(f"If you approve it, exactly this plan runs ({digest[:23]}…).")
    output.say("y: run it; n: reject it, which ends the task; r: say what should change; Ctrl-C: cancel the task")
    while True:
        answer = output.ask("Run this plan? [y/n/r] ")
        if answer is not None and answer.lower() in {"y", "yes", "n", "no"}:
            return answer.lower()[0]
        if answer is not None and answer.lower() in {"r", "revise"}:
            answer = ask_for_changes(client)
            if answer:
                return f"r {answer}"
        if answer is None:
            output.say("")
            return None


def ask_for_changes(client: Client) -> str | None:
    """Ask the person at the terminal what should change, and say first what the planner understands."""
    understood = client.get_models()["revision_help"]
    if understood:
        output.say(understood)
    return output.ask("What should change? ")


def _cancel_and_wait(follower: Follower) -> Task:
    with suppress(ApiError):  # the task has ended meanwhile; its status is shown
        follower.client.cancel(follower.task_id, reason="interrupted at the command line")
    return follower.until_settled()


def finish(options: argparse.Namespace, task: Task, *, with_id: bool = False) -> int:
    """Print the result of a task, and return its exit code."""
    explain(options, task)
    if options.json:
        output.document(task)
    elif task["status"] == "completed":
        output.result(task["result"] or "")
    elif with_id:
        output.result(task["task_id"])
    if task["status"] in WAITING:
        return PERSON_NEEDED
    return COMPLETED if task["status"] == "completed" else FAILED
