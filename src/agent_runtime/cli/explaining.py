"""The problems and questions of a task in words, with the commands that answer them."""

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent_runtime.cli import output
from agent_runtime.text.escaping import escape_hidden, one_line


def explain(options: argparse.Namespace, task: Mapping[str, Any]) -> None:
    """Print the problems and questions of a task, with the commands that answer them."""
    task_id, error = task["task_id"], task["error"]
    if error:
        step = f" in step {error['step_id']}" if error["step_id"] else ""
        output.say(f"Task {task_id} failed{step}: {error['message']}")
        if error["code"] == "planning_refused":
            output.say(f"Without a planner, call one tool: {hint(options, 'call', 'SERVER.TOOL', 'NAME=VALUE')}")
            output.say(f"or run a plan of your own: {hint(options, 'run', '--plan', 'FILE')}")
    elif task["status"] == "expired":
        output.say(f"Task {task_id} has expired: its plan was not approved in time.")
    elif task["terminal"] and task["status"] != "completed":
        output.say(f"Task {task_id} was {task['status']}.")
    elif task["status"] == "awaiting_approval":
        if task["revision_failed"]:
            output.say(f"No other plan could be made: {task['revision_failed']['message']}")
        was_sent_back = task["plan_revision"] > 1 or task["revision_failed"]
        named = ("--digest", task["plan_digest"]) if was_sent_back else ()
        output.say(f"Task {task_id} awaits approval. Approve its plan: {hint(options, 'approve', task_id, *named)}")
        output.say(f"or reject it: {hint(options, 'reject', task_id)}")
        output.say(f"or ask for changes: {hint(options, 'revise', task_id, 'FEEDBACK')}")
    for asked in task["attention"]:
        if asked["kind"] == "journal_changed":
            output.say(f"The stored journal was changed at record {asked['record']}, so the task no longer runs.")
            output.say(f"Reason: {asked['reason']}")
            output.say(f"Verify it: {hint(options, 'audit', 'verify', task_id)}")
            continue
        if asked["kind"] == "call_approval":
            _explain_call(options, task_id, asked)
            continue
        if asked["kind"] == "input":
            show_question(asked)
            question = ("--question", asked["question_id"])
            output.say(f"Answer it: {hint(options, 'answer', task_id, *question, '--content', 'JSON')}")
            output.say(f"or decline it: {hint(options, 'answer', task_id, *question, '--decline')} (or --dismiss)")
            continue
        output.say(f"Step {asked['step_id']} called {output.tool_name(asked)}: {asked['reason']}")
        if asked["needed_by"]:
            output.say(f"Skipping it also skips the steps that need it: {', '.join(asked['needed_by'])}.")
        first, *others = asked["actions"]
        resolve_it = hint(options, "resolve", task_id, "--step", asked["step_id"], "--as", first)
        output.say(f"Find out if it took effect, and resolve it: {resolve_it} (or {', '.join(others)})")


def _explain_call(options: argparse.Namespace, task_id: str, asked: Mapping[str, Any]) -> None:
    show_call(asked)
    call = ("--call", asked["call_id"])
    output.say(f"Approve it: {hint(options, 'approve', task_id, *call)} (--arguments JSON sends others)")
    output.say(f"or deny it: {hint(options, 'reject', task_id, *call)}")


def show_call(asked: Mapping[str, Any]) -> None:
    """Print a call that awaits approval, with all of its arguments."""
    output.say(f"Step {asked['step_id']} asks before it calls {output.tool_name(asked)}: {asked['reason']}")
    for line in output.argument_lines(asked["arguments"]):
        output.say(f"  {line}")


def hint(options: argparse.Namespace, verb: str, task_id: str | None = None, *more: str) -> str:
    """Return the command line of another command on the same service."""
    words = [*command_words(), verb, task_id or options.task_id, *more]
    for name in ("server", "config", "registry", "data_dir", "key_file"):
        if getattr(options, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    return shlex.join(words)


def command_words() -> list[str]:
    """Return the words with which this command was started, for commands that work as typed."""
    if "UV_RUN_RECURSION_DEPTH" in os.environ:  # `uv run` sets it
        return ["uv", "run", "agent-runtime"]
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return [sys.executable, "-m", "agent_runtime"]
    return ["agent-runtime" if shutil.which("agent-runtime") else str(started)]


def show_question(asked: Mapping[str, Any]) -> None:
    """Print the question of a server, and the fields of an answer."""
    output.say(f"The server {escape_hidden(asked['server'])} asks you, in step {asked['step_id']}: {asked['message']}")
    schema = asked["schema"]
    for name, field in schema["properties"].items():
        needed = "" if name in schema.get("required", ()) else ", optional"
        described = escape_hidden(json.dumps(field, ensure_ascii=False))
        output.say(f"  {one_line(name)}{needed}: {described}")
