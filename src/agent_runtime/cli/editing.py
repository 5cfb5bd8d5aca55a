"""The commands `plan` and `edit`: take the plan of a task out as YAML, and put an edited one back."""

import argparse

from agent_runtime.cli import output
from agent_runtime.cli.plan_files import read_written_plan, write_plan
from agent_runtime.cli.running import finish, name_faults, show_plan
from agent_runtime.cli.service import connect
from agent_runtime.domain.errors import Fault, InvalidInputError


def show(options: argparse.Namespace) -> int:
    """Print the plan of a task as YAML, to be edited and put back with `edit`."""
    with connect(options) as service:
        task = service.client.get_task(options.task_id)
    if not task["plan_object"]:
        raise InvalidInputError([Fault("ID", f"Task {task['task_id']} is {task['status']} and has no plan.")])
    if options.json:
        output.document(task["plan_object"])
    else:
        output.result(write_plan(task).rstrip("\n"))
    return 0


def edit(options: argparse.Namespace) -> int:
    """Replace the plan of a task by the one in a file, and show it. Return 3 while it awaits approval."""
    plan, digest = read_written_plan(options.file)
    with connect(options, resume=True) as service:
        current = service.client.get_task(options.task_id)
        with name_faults("plan.", f"{options.file}: "):
            service.client.edit(options.task_id, plan, digest or current["plan_digest"] or "")
        task = service.client.get_task(options.task_id)
        if task["status"] == "awaiting_approval":
            show_plan(service.client, task)
    return finish(options, task)
