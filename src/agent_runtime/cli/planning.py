"""The command `planning`: what a language model was asked for the plans of a task, and what it answered."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.service import connect


def show_attempts(options: argparse.Namespace) -> int:
    """Print the attempts of a model at the plans of a task."""
    with connect(options) as service:
        found = service.client.list_planning_attempts(options.task_id)
    if options.json:
        output.document(found)
        return 0
    for attempt in found["attempts"]:
        output.result("\n".join(_describe(attempt)))
    if not found["attempts"]:
        output.say("No language model was asked for a plan of this task.")
    return 0


def _describe(attempt: Mapping[str, Any]) -> Iterator[str]:
    usage = attempt["usage"]
    cost = f"{usage['input_tokens']} + {usage['output_tokens']} tokens, {attempt['duration_ms'] / 1000:.1f} s"
    yield f"== Attempt {attempt['number']}, for revision {attempt['revision']}: {attempt['outcome']} ({cost})"
    if attempt["cut"]:
        yield "(long texts are shown in part)"
    yield f"-- instructions\n{attempt['instructions']}"
    for message in attempt["messages"]:
        yield f"-- {message['role']}\n{message['content']}"
    if attempt["answer"] is not None:
        yield f"-- answer\n{attempt['answer']}"
    for fault in attempt["faults"]:
        yield f"-- fault {fault['field']}\n{fault['message']}"
    if attempt["message"]:
        yield f"-- reason\n{attempt['message']}"
