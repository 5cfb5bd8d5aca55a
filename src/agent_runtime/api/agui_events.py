"""The AG-UI events of a task as a pure function of its journal, for every door that speaks AG-UI.

It needs the library of the protocol, so doors import it with their first request. See docs/reference/agui.md.
"""

import json
from collections.abc import Iterable, Iterator

from ag_ui.core import (
    AssistantMessage,
    BaseEvent,
    CustomEvent,
    FunctionCall,
    Interrupt,
    Message,
    MessagesSnapshotEvent,
    RunErrorEvent,
    RunFinishedCancelledOutcome,
    RunFinishedEvent,
    RunFinishedInterruptOutcome,
    RunFinishedOutcome,
    RunFinishedSuccessOutcome,
    RunStartedEvent,
    StateDeltaEvent,
    StateSnapshotEvent,
    StepFinishedEvent,
    StepStartedEvent,
    TextMessageContentEvent,
    TextMessageEndEvent,
    TextMessageStartEvent,
    ToolCall,
    ToolCallArgsEvent,
    ToolCallEndEvent,
    ToolCallResultEvent,
    ToolCallStartEvent,
    ToolMessage,
    UserMessage,
)
from ag_ui.encoder import EventEncoder

from agent_runtime.api.result_text import describe_kept_plan, describe_resolution
from agent_runtime.api.told_calls import ToldCalls
from agent_runtime.api.views import plan_text
from agent_runtime.domain import events as ev
from agent_runtime.domain.log_lines import log_line
from agent_runtime.domain.preview import notes_on_names, preview_steps
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import StepStatus, Task
from agent_runtime.domain.transitions import evolve, is_late_evidence
from agent_runtime.domain.values import JsonObject, JsonValue
from agent_runtime.live.progress import Piece, Reported
from agent_runtime.text.escaping import cut, escape_hidden

PROTOCOL_VERSION = "1.0"
PLANNER = "planner"
"""The name of the step in which a plan is made. No step of a plan that runs is active meanwhile."""

MESSAGE_ID = "agui.message_id"
"""The label of a task that holds the id of the message that it was made from."""

_MOST_CHARACTERS = 64 * 1024
"""The longest text of a message. The whole of a longer result is in the task."""

_encoder = EventEncoder()


def encode(events: Iterable[BaseEvent]) -> bytes:
    """Return the frames of the events."""
    return "".join(map(_encoder.encode, events)).encode(errors="replace")


def start_run(thread_id: str, run_id: str, parent_run_id: str | None = None) -> BaseEvent:
    """Return the event with which each run begins."""
    return RunStartedEvent(
        thread_id=thread_id, run_id=run_id, parent_run_id=parent_run_id, protocol_version=PROTOCOL_VERSION
    )


def fail_run(message: str, code: str) -> BaseEvent:
    """Return the event of a run that ends with an error."""
    return RunErrorEvent(message=escape_hidden(cut(message, _MOST_CHARACTERS), keep="\n\t"), code=code)


def name_prompt(task_id: str, metadata: JsonObject) -> str:
    """Return the id of the message with the prompt of a task."""
    return str(metadata.get(MESSAGE_ID) or f"{task_id}-prompt")


def tell_ended(task: Task) -> Iterator[Message]:
    """Yield the prompt and the end of an earlier task of a thread, as messages."""
    yield UserMessage(id=name_prompt(task.task_id, dict(task.metadata)), content=cut(task.prompt, _MOST_CHARACTERS))
    end = task.result if task.error is None else task.error.message
    yield AssistantMessage(id=f"{task.task_id}-result", content=_clear(end or f"The task is {task.status}."))


class Conversation:
    """A task as one AG-UI run tells it. It folds the journal from its first record, and makes the events of each.

    `messages`: those of the task so far, by id and in order.
    """

    def __init__(self, task_id: str) -> None:
        self.task = Task(task_id)
        self.messages: dict[str, Message] = {}
        self._steps: list[str] = []
        self._texts: dict[str, str] = {}
        """The text messages that are open, by the step whose model writes them."""
        self._calls = ToldCalls()

    def begin(self) -> list[BaseEvent]:
        """Return the events that show the state so far, for a run that joins a task."""
        self._steps = []
        self._texts = {}
        events: list[BaseEvent] = [self._snapshot()]
        if self.task.status is TaskStatus.PENDING:
            events += self._start_step(PLANNER)
        running = [name for name, state in self.task.steps.items() if state.status is StepStatus.RUNNING]
        return [*events, *(event for name in running for event in self._start_step(name))]

    def add(self, record: ev.EventRecord) -> list[BaseEvent]:
        """Fold the next record, and return its events. Raises: as `evolve`."""
        before = self.task
        self.task = evolve(before, record)
        if is_late_evidence(before.epoch, record):
            return []
        events = [*self._tell(record.event), *self._compare(before, record.event)]
        line = log_line(record)
        if line:
            value = {"seq": record.seq, "type": record.type, "at": record.at.isoformat(), "line": line}
            events.append(CustomEvent(name="log", value=value))
        return events

    def add_piece(self, piece: Piece) -> list[BaseEvent]:
        """Return the events of a text that a model is writing, or of the report of a server."""
        if isinstance(piece, Reported):
            report = {"stepId": piece.step_id, "progress": piece.report.progress, "total": piece.report.total}
            return [CustomEvent(name="progress", value={**report, "message": piece.text})]
        state = self.task.steps.get(piece.step_id or "")
        if piece.step_id is None or state is None or state.status is not StepStatus.RUNNING:
            return []  # a plan is told once it can be read, and a text that comes late is in the journal
        message_id = f"{self.task.task_id}-{piece.step_id}-{len(state.turns) + 1}"
        events: list[BaseEvent] = []
        if piece.step_id not in self._texts:
            self._texts[piece.step_id] = message_id
            events.append(TextMessageStartEvent(message_id=message_id, role="assistant"))
        return [*events, TextMessageContentEvent(message_id=self._texts[piece.step_id], delta=_clear(piece.text))]

    def finish(
        self, thread_id: str, run_id: str, interrupts: list[Interrupt], earlier: Iterable[Message]
    ) -> list[BaseEvent]:
        """Return the last events of a run: what is open is closed, the state and the messages are told whole, then how
        the run ended. `earlier`: the messages before those of this task, or sent by the client.
        """
        task = self.task
        events: list[BaseEvent] = [TextMessageEndEvent(message_id=open_) for open_ in self._texts.values()]
        events += [StepFinishedEvent(step_name=name) for name in self._steps]
        known = {message.id: message for message in earlier} | self.messages
        events += [self._snapshot(), MessagesSnapshotEvent(messages=list(known.values()))]
        self._texts, self._steps = {}, []
        if task.journal_change is not None:
            return [*events, fail_run(f"The journal was changed: {task.journal_change.reason}", "journal_changed")]
        if task.status is TaskStatus.FAILED and task.error is not None:
            return [*events, fail_run(task.error.message, task.error.code)]
        if task.status is TaskStatus.EXPIRED:
            return [*events, fail_run("The plan was not approved in time.", "expired")]
        outcome: RunFinishedOutcome = RunFinishedSuccessOutcome()
        if interrupts:
            outcome = RunFinishedInterruptOutcome(interrupts=interrupts)
        elif task.status is TaskStatus.CANCELLED:
            outcome = RunFinishedCancelledOutcome()
        return [*events, RunFinishedEvent(thread_id=thread_id, run_id=run_id, outcome=outcome, result=task.result)]

    # The state

    def show_state(self) -> JsonObject:
        """Return the state of the task as front ends see it."""
        task = self.task
        error = {"code": task.error.code, "message": task.error.message} if task.error else None
        shown = {"taskId": task.task_id, "status": task.status.value, "result": task.result, "error": error}
        return {**shown, "plan": self._show_plan()}

    def _show_plan(self) -> JsonObject | None:
        contract = self.task.contract
        if contract is None:
            return None
        digested = contract.as_digested()
        steps = [{**step, "status": self.task.steps[step["id"]].status.value} for step in digested["steps"]]
        named = {"revision": self.task.plan_revision, "digest": self.task.plan_digest, "goal": digested["goal"]}
        return {**named, "text": tell_plan(self.task), "steps": steps}

    def _snapshot(self) -> BaseEvent:
        return StateSnapshotEvent(snapshot=self.show_state())

    def _compare(self, before: Task, event: ev.Event) -> Iterator[BaseEvent]:
        """Yield the changes of the state."""
        if isinstance(event, ev.TaskSubmitted | ev.PlanProposed | ev.PlanEdited | ev.PlanRepinned):
            yield self._snapshot()
            return
        changed: dict[str, JsonValue] = {}
        if before.status is not self.task.status:
            changed["/status"] = self.task.status.value
        if before.result != self.task.result:
            changed["/result"] = self.task.result
        if before.error != self.task.error:
            changed["/error"] = self.show_state()["error"]
        for place, (name, state) in enumerate(self.task.steps.items()):
            if before.steps[name].status is not state.status:
                changed[f"/plan/steps/{place}/status"] = state.status.value
        if changed:
            delta = [{"op": "replace", "path": path, "value": value} for path, value in changed.items()]
            yield StateDeltaEvent.model_validate({"delta": delta})

    # The events

    def _tell(self, event: ev.Event) -> Iterator[BaseEvent]:
        for call_id, text in self._calls.explain_unanswered(event):
            yield from self._give_result(call_id, text, failed=True)
        match event:
            case ev.TaskSubmitted():
                message_id = name_prompt(self.task.task_id, dict(event.metadata))
                self.messages[message_id] = UserMessage(id=message_id, content=cut(event.prompt, _MOST_CHARACTERS))
                yield from self._start_step(PLANNER)
            case ev.PlanRevisionRequested():
                yield from self._start_step(PLANNER)
            case ev.PlanProposed() | ev.PlanEdited() | ev.PlanRepinned():
                yield from self._end_step(PLANNER)
                yield from self._say(f"{self.task.task_id}-plan-{event.revision}", tell_plan(self.task))
            case ev.PlanRevisionFailed():
                yield from self._end_step(PLANNER)
                yield from self._say(f"{self.task.task_id}-plan-{self.task.version}", describe_kept_plan(event))
            case ev.StepStarted():
                yield from self._start_step(event.step_id)
            case ev.StepCompleted() | ev.StepFailed() | ev.StepSkipped():
                yield from self._end_text(event.step_id)
                yield from self._end_step(event.step_id)
            case ev.TaskCompleted():
                yield from self._end(event)
            case ev.ModelAnswered() | ev.ToolCalled() | ev.CallApprovalRequested() | ev.ToolReturned():
                yield from self._tell_call(event)
            case ev.CallApproved():
                self._note_edit(event)
            case ev.CallDenied():
                reason = f": {event.comment}" if event.comment else "."
                yield from self._give_result(event.call_id, f"A person denied this call{reason}")
            case ev.StepResolved():
                yield from self._give_result(event.call_id, describe_resolution(event))
            case _:
                return

    def _tell_call(
        self, event: ev.ModelAnswered | ev.ToolCalled | ev.CallApprovalRequested | ev.ToolReturned
    ) -> Iterator[BaseEvent]:
        match event:
            case ev.ModelAnswered():
                message_id = f"{self.task.task_id}-{event.step_id}-{event.turn}"
                streamed = event.step_id in self._texts
                yield from self._end_text(event.step_id)
                if event.answer is not None and event.objection is None:
                    yield from self._say(message_id, event.answer.text, streamed=streamed)
            case ev.ToolReturned():
                yield from self._give_result(event.call_id, event.result.text, failed=event.result.is_error)
            case _:
                yield from self._announce(event)

    def _start_step(self, name: str) -> Iterator[BaseEvent]:
        if name not in self._steps:
            self._steps.append(name)
            yield StepStartedEvent(step_name=name)

    def _end_step(self, name: str) -> Iterator[BaseEvent]:
        if name in self._steps:
            self._steps.remove(name)
            yield StepFinishedEvent(step_name=name)

    def _end_text(self, step_id: str) -> Iterator[BaseEvent]:
        """End the text that the model of a step has been writing, if there is one."""
        message_id = self._texts.pop(step_id, None)
        if message_id is not None:
            yield TextMessageEndEvent(message_id=message_id)

    def _say(self, message_id: str, text: str, *, streamed: bool = False) -> Iterator[BaseEvent]:
        shown = _clear(text)
        self.messages[message_id] = AssistantMessage(id=message_id, content=shown)
        if not streamed and shown:
            yield TextMessageStartEvent(message_id=message_id, role="assistant")
            yield TextMessageContentEvent(message_id=message_id, delta=shown)
            yield TextMessageEndEvent(message_id=message_id)

    def _end(self, event: ev.TaskCompleted) -> Iterator[BaseEvent]:
        said = {message.content for message in self.messages.values() if isinstance(message, AssistantMessage)}
        if _clear(event.result) not in said:  # the answer of the last step is often the result
            yield from self._say(f"{self.task.task_id}-result", event.result)

    def _announce(self, event: ev.ToolCalled | ev.CallApprovalRequested) -> Iterator[BaseEvent]:
        if not self._calls.announce(event):
            return
        name = self._calls.find_tool(event.call_id)
        arguments = json.dumps(event.arguments, ensure_ascii=False)
        parent = f"{event.call_id}-call"
        call = ToolCall(id=event.call_id, function=FunctionCall(name=name, arguments=arguments))
        self.messages[parent] = AssistantMessage(id=parent, tool_calls=[call])
        yield ToolCallStartEvent(tool_call_id=event.call_id, tool_call_name=name, parent_message_id=parent)
        yield ToolCallArgsEvent(tool_call_id=event.call_id, delta=arguments)
        yield ToolCallEndEvent(tool_call_id=event.call_id)

    def _note_edit(self, event: ev.CallApproved) -> None:
        """Have the messages show the arguments that are sent. The protocol has no event that changes them."""
        parent = f"{event.call_id}-call"
        shown = self.messages.get(parent)
        if event.edited_arguments is None or not isinstance(shown, AssistantMessage) or not shown.tool_calls:
            return
        (call,) = shown.tool_calls
        arguments = json.dumps(event.edited_arguments, ensure_ascii=False)
        function = FunctionCall(name=call.function.name, arguments=arguments)
        self.messages[parent] = AssistantMessage(id=parent, tool_calls=[ToolCall(id=call.id, function=function)])

    def _give_result(self, call_id: str, text: str, *, failed: bool = False) -> Iterator[BaseEvent]:
        told = self._calls.settle(call_id)
        if told is None:
            return
        message_id, shown = f"{told}-result", _clear(text)
        error = shown if failed else None
        self.messages[message_id] = ToolMessage(id=message_id, tool_call_id=told, content=shown, error=error)
        yield ToolCallResultEvent(message_id=message_id, tool_call_id=told, content=shown, role="tool")


def tell_plan(task: Task) -> str:
    """Return the plan as a person reads it."""
    steps = task.contract.steps if task.contract else ()
    shown = preview_steps(task)
    return "\n".join([plan_text(steps, shown), *notes_on_names(task, shown)])


def _clear(text: str) -> str:
    return escape_hidden(cut(text, _MOST_CHARACTERS), keep="\n\t")
