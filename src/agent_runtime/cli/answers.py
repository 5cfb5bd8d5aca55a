"""Questions of servers, which a person answers at the terminal while following the task."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from agent_runtime.cli import output
from agent_runtime.cli.explaining import show_question
from agent_runtime.client import ApiError, Client, InputQuestion, Task
from agent_runtime.text.escaping import one_line


def are_all_that_is_asked(task: Task) -> bool:
    """Return True if a task waits only for answers to questions of servers."""
    return bool(task["attention"]) and all(asked["kind"] == "input" for asked in task["attention"])


def answer_questions(client: Client, task: Task, known: Collection[str]) -> list[str]:
    """Ask the person at the terminal, if there is one, the questions with ids not in `known`. Return their ids."""
    if not output.is_person_there():
        return []
    new = [asked for asked in task["attention"] if asked["kind"] == "input" and asked["question_id"] not in known]
    for asked in new:
        show_question(asked)
        answered = output.ask_yes_or_no("Answer it?")
        if answered is None:  # the question stays open
            continue
        content = _ask_for_fields(asked) if answered else None
        try:
            client.answer(task["task_id"], asked["question_id"], content)
        except ApiError as refusal:
            output.say(str(refusal))
    return [asked["question_id"] for asked in new]


def _ask_for_fields(asked: InputQuestion) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, field in asked["schema"]["properties"].items():
        text = output.ask(f"{one_line(name)}: ")
        if text:
            content[name] = _read_value(text, field)
    return content


def _read_value(text: str, field: Mapping[str, Any]) -> Any:
    """Return the typed answer: unchanged for a text field, otherwise parsed as JSON if it is JSON."""
    if field.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
