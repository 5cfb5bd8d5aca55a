"""Follow a task at the command line."""

from datetime import UTC, datetime
from functools import partial

from agent_runtime.cli import answers, output
from agent_runtime.cli.live_text import LiveText
from agent_runtime.cli.spinner import Spinner
from agent_runtime.client import Client, Frame, Task
from agent_runtime.client.requests import ASKING

WAITING = frozenset({"awaiting_approval", "needs_attention"})
"""The statuses of a task that waits for a person."""

_DOING = {
    "task.submitted": "Planning",
    "plan.revision_requested": "Planning",
    "plan.approved": "Running",
    "step.started": "Running",
    "tool.called": "Waiting for the answer of the tool",
    "tool.returned": "Running",
}
"""What goes on after an event, as the spinner says it."""

_ENDED = frozenset({"task.completed", "task.failed"})
"""The events whose log line is a shortened form of the text that is printed at the end."""


class Follower:
    """Shows the log lines of a task, each once, and in `live` what the model writes while it plans.

    `spinner` shows that the task goes on, and how far its open calls are.
    """

    def __init__(self, client: Client, task_id: str, live: LiveText, spinner: Spinner) -> None:
        self.client = client
        self.task_id = task_id
        self._live = live
        self._spinner = spinner
        self._last = ""
        self._answered: list[str] = []

    def until_settled(self) -> Task:
        """Follow the task until it ends or waits for a person, and return it."""
        self._spinner.show()
        try:
            return self._follow()
        finally:
            self._spinner.pause()
            self._live.end_line()

    def _follow(self) -> Task:
        event, at, asking = "", "", False
        for frame in self.client.follow(self.task_id, self._last):
            if not frame.id:
                self._show_progress(frame)
                continue
            self._last = frame.id
            if not frame.is_line:
                event, at = frame.event, frame.json()["at"]
                if event in _DOING:
                    self._spinner.show(_DOING[event])
                continue
            if event not in _ENDED:
                self._say(frame.data, datetime.fromisoformat(at))
            if event in ASKING or asking:
                task = self._load()
                asking = task["status"] in WAITING and not task["cancel_requested"]
                if asking and answers.are_all_that_is_asked(task):
                    asking = False  # the call continues after an answer or a decline
                    self._spinner.pause()
                    self._answered += answers.answer_questions(self.client, task, self._answered)
                    self._spinner.show()
                if asking and not self._has_more(frame):
                    return task
        return self._load()

    def _load(self) -> Task:
        return self.client.until_answered(partial(self.client.get_task, self.task_id))

    def _has_more(self, frame: Frame) -> bool:
        """Return True if the journal of the task has events after this frame."""
        read = partial(self.client.list_events, self.task_id, after=frame.seq or 0, limit=1)
        return bool(self.client.until_answered(read)["events"])

    def _show_progress(self, frame: Frame) -> None:
        """Show the progress report of a server, or a piece of a plan that is being written."""
        if frame.is_line and self._spinner.enabled:
            self._spinner.show(frame.data)
        elif frame.is_line:
            self._say(frame.data, datetime.now(UTC))
        elif frame.event == "progress":
            piece = frame.json()
            if piece["step_id"] is None and piece["text"]:
                self._spinner.pause()
                self._live.show(piece["text"])

    def _say(self, line: str, at: datetime) -> None:
        """Print a log line with its time, in the time zone of the person."""
        self._spinner.pause()
        self._live.end_line()
        output.say(f"  {at.astimezone():%H:%M:%S} {line}")
        self._spinner.show()
