"""Follow a task at the command line."""

import json
from functools import partial

from agent_runtime.cli import answers, output
from agent_runtime.cli.client import Client, Frame, Json
from agent_runtime.cli.live_text import LiveText

WAITING = frozenset({"awaiting_approval", "needs_attention"})
"""The statuses of a task that waits for a person."""

_ASKING = frozenset(
    {"plan.proposed", "plan.edited", "plan.repinned"}
    | {"call.approval_requested", "step.outcome_unknown", "input.requested"}
)
"""The events after which a task may wait for a person. Events of parallel steps may still follow."""

_ENDED = frozenset({"task.completed", "task.failed"})
"""The events whose log line is a shortened form of the text that is printed at the end."""


class Follower:
    """Shows the log lines of a task, each once, and in `live` what the model writes while it plans."""

    def __init__(self, client: Client, task_id: str, live: LiveText) -> None:
        self.client = client
        self.task_id = task_id
        self._live = live
        self._last = ""
        self._answered: list[str] = []

    def until_settled(self) -> Json:
        """Follow the task until it ends or waits for a person, and return it."""
        try:
            return self._follow()
        finally:
            self._live.end_line()

    def _follow(self) -> Json:
        event, asking = "", False
        for frame in self.client.follow(self.task_id, self._last):
            if not frame.id:
                self._show_progress(frame)
                continue
            self._last = frame.id
            if frame.last:
                break
            if frame.event != "message":
                event = frame.event
                continue
            if event not in _ENDED:
                self._say(frame.data)
            if event in _ASKING or asking:
                task = self.client.ask_until_answered(partial(self.client.task, self.task_id))
                asking = task["status"] in WAITING and not task["cancel_requested"]
                if asking and answers.are_all_that_is_asked(task):
                    asking = False  # the call continues after an answer or a decline
                    self._answered += answers.answer_questions(self.client, task, self._answered)
                if asking and not self.client.ask_until_answered(
                    partial(self.client.has_more, self.task_id, frame.seq)
                ):
                    return task
        return self.client.ask_until_answered(partial(self.client.task, self.task_id))

    def _show_progress(self, frame: Frame) -> None:
        """Show the progress report of a server, or a piece of a plan that is being written."""
        if frame.event == "message":
            self._say(frame.data)
        elif frame.event == "progress":
            piece = json.loads(frame.data)
            if piece["step_id"] is None:
                self._live.show(piece["text"])

    def _say(self, line: str) -> None:
        self._live.end_line()
        output.say(f"  {line}")
