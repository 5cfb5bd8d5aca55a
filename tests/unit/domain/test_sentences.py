"""The sentences that tell a person what the steps of a plan would do."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.contract import Contract, Limits, PinnedPolicy
from agent_runtime.domain.plan import AgentStep, AllowedTool, ToolStep
from agent_runtime.domain.present_files import FileState, NamedFile
from agent_runtime.domain.rerun import PinnedRerun
from agent_runtime.domain.sentences import StepInWords, describe_steps
from agent_runtime.domain.tools import Effect, ToolDefinition
from agent_runtime.text.escaping import has_hidden

IDENTITIES = {
    **{name: {"type": "builtin", "server": name} for name in ("filesystem", "calculator", "text", "todo")},
    "github": {"type": "remote_http"},
    "docs": {"type": "builtin", "server": "filesystem"},
}
EXISTS = FileState("file", 876, 3)
MISSING = FileState("missing")


def call(name: str, server: str, tool: str, when: str | None = None, **arguments: Any) -> ToolStep:
    return ToolStep(id=name, kind="tool", server=server, tool=tool, arguments=arguments, when=when)


def describe(
    *steps: ToolStep | AgentStep,
    files: Mapping[NamedFile, FileState] | None = None,
    effect: Effect = Effect.UNKNOWN,
    hints: dict[str, Any] | None = None,
    rerun: PinnedRerun | None = None,
) -> list[StepInWords]:
    policy = PinnedPolicy(effect=effect, idempotent=False, approval="plan")
    keys = {
        key for step in steps for key in ([step.key] if isinstance(step, ToolStep) else [t.key for t in step.tools])
    }
    contract = Contract(
        goal="g", steps=steps, limits=Limits(), policy=dict.fromkeys(keys, policy), pins={}, rerun=rerun
    )
    definitions = {key: ToolDefinition(name="t", annotations=hints) for key in keys}
    return describe_steps(contract, IDENTITIES, definitions, files)


def sentences(*steps: ToolStep | AgentStep, **more: Any) -> list[str]:
    return [told.sentence for told in describe(*steps, **more)]


SENTENCES: list[tuple[str, str, dict[str, Any], str]] = [
    ("filesystem", "read_file", {"path": "notes.txt"}, "Reads notes.txt."),
    ("docs", "read_file", {"path": "a b.txt"}, 'Reads "a b.txt".'),
    ("filesystem", "write_file", {"path": "a", "content": "x"}, 'Writes "x" to a, in place of anything that is there.'),
    ("filesystem", "append_file", {"path": "a", "content": 'a\n"'}, 'Adds "a\\n\\"" to the end of a.'),
    ("filesystem", "list_directory", {}, "Lists what is in the root folder."),
    ("filesystem", "list_directory", {"path": "sub"}, "Lists what is in the folder sub."),
    ("filesystem", "create_directory", {"path": "sub"}, "Creates the folder sub."),
    (
        "filesystem",
        "search_files",
        {"pattern": "*.txt", "content": "milk", "path": "sub"},
        'Looks for files that match "*.txt" that hold "milk" in the folder sub and below.',
    ),
    ("filesystem", "file_info", {"path": "a"}, "Looks up the type, size and date of a."),
    ("calculator", "subtract", {"a": 10, "b": 2.5}, "Subtracts 2.5 from 10."),
    ("calculator", "evaluate", {"expression": "2 * 3"}, 'Calculates "2 * 3".'),
    ("text", "summarize", {"text": "t", "sentences": 1}, 'Summarizes "t" in at most 1 sentence.'),
    ("filesystem", "copy_file", {"source": "a", "destination": "b"}, "Copies a to b."),
    ("filesystem", "delete_file", {"path": "a"}, "Deletes a for good."),
    ("todo", "delete_all", {"status": "done"}, "Deletes the todos that are done for good."),
    ("text", "head", {"text": "t"}, 'Takes the first 10 lines of "t".'),
    ("todo", "list", {}, "Lists the open todos."),
    ("todo", "complete", {"id": 3}, "Marks todo 3 as done."),
    ("todo", "delete", {"text": "milk"}, 'Deletes the todo "milk" for good.'),
    (
        "github",
        "create_issue",
        {"title": "Broken", "private": True, "labels": ["a", "b"], "owner": {"name": "x"}, "body": None},
        (
            'Asks the server github to run create_issue with title "Broken", private yes, labels "a" and "b", '
            "owner 1 value (name) and 1 more value."
        ),
    ),
    ("github", "read_file", {"path": "a"}, 'Asks the server github to run read_file with path "a".'),
    ("github", "ping", {}, "Asks the server github to run ping."),
]


@pytest.mark.parametrize(("server", "tool", "arguments", "sentence"), SENTENCES)
def test_a_call_is_described_in_one_sentence(server: str, tool: str, arguments: dict[str, Any], sentence: str) -> None:
    assert sentences(call("s1", server, tool, **arguments)) == [sentence]


def test_a_server_that_only_has_the_name_of_a_built_in_one_gets_none_of_its_words() -> None:
    step = call("s1", "filesystem", "read_file", path="a")
    policy = PinnedPolicy(effect=Effect.READ, idempotent=False, approval="plan")
    contract = Contract(goal="g", steps=(step,), limits=Limits(), policy={step.key: policy}, pins={})
    identities = {"filesystem": {"type": "local_stdio", "server": "filesystem"}}
    (told,) = describe_steps(contract, identities, {}, {("filesystem", "a"): EXISTS})
    assert told.sentence == 'Asks the server filesystem to run read_file with path "a".'


def test_a_file_is_described_as_it_is_now() -> None:
    read = call("s1", "filesystem", "read_file", path="a")
    write = call("s1", "filesystem", "write_file", path="a", content="x")
    add = call("s1", "filesystem", "append_file", path="a", content="x")
    make = call("s1", "filesystem", "create_directory", path="a")
    found = {
        state: [sentences(step, files={("filesystem", "a"): state})[0] for step in (read, write, add, make)]
        for state in (EXISTS, MISSING, FileState("folder"))
    }
    assert found == {
        EXISTS: [
            "Reads a (3 lines, 876 bytes).",
            'Replaces a, which exists (876 bytes), with "x".',
            'Adds "x" to the end of a, which exists (876 bytes).',
            "Creates the folder a.",
        ],
        MISSING: [
            "Reads a, which does not exist now.",
            'Creates a with "x".',
            'Creates a with "x".',
            "Creates the folder a.",
        ],
        FileState("folder"): [
            "Reads a, which is a folder now.",
            'Replaces a, which is a folder now, with "x".',
            'Adds "x" to the end of a, which is a folder now.',
            "Creates the folder a, which exists already: nothing changes.",
        ],
    }


def test_a_file_that_is_copied_moved_or_deleted_is_described_as_it_is_now() -> None:
    steps = [
        call("s1", "filesystem", "copy_file", source="a", destination="b"),
        call("s2", "filesystem", "copy_file", source="c", destination="a"),
        call("s3", "filesystem", "move_file", source="a", destination="d"),
        call("s4", "filesystem", "delete_file", path="e"),
        call("s5", "filesystem", "read_file", path="e"),
    ]
    files = {("filesystem", name): EXISTS if name in "ae" else MISSING for name in "abcde"}
    assert sentences(*steps, files=files) == [
        "Copies a (876 bytes) to b.",
        "Copies c, which does not exist now, to a, which exists (876 bytes).",
        "Moves a, which step 2 writes, to d.",
        "Deletes e (876 bytes) for good.",
        "Reads e, which step 4 deletes.",
    ]


def test_a_deleted_file_is_destroyed_and_not_written() -> None:
    (told,) = describe(
        call("s1", "filesystem", "delete_file", path="a"),
        files={("filesystem", "a"): MISSING},
        effect=Effect.DESTRUCTIVE,
        hints={"destructiveHint": True},
    )
    assert (told.effect, told.effect_text) == (Effect.DESTRUCTIVE, "destructive")


def test_a_file_that_an_earlier_step_writes_is_not_described_as_it_is_now() -> None:
    files = {("filesystem", "a"): MISSING, ("filesystem", "./a"): MISSING, ("docs", "a"): EXISTS}
    write = call("s1", "filesystem", "write_file", path="./a", content="x")
    read = call("s2", "filesystem", "read_file", path="a")
    again = call("s3", "filesystem", "write_file", path="a", content="y")
    other = call("s4", "docs", "read_file", path="a")
    told = describe(write, read, again, other, files=files, effect=Effect.DESTRUCTIVE, hints={"destructiveHint": True})
    assert [one.sentence for one in told] == [
        'Creates ./a with "x".',
        "Reads a, which step 1 writes.",
        'Replaces a, which step 1 writes, with "y".',
        "Reads a (3 lines, 876 bytes).",
    ]
    assert [one.effect_text for one in told][:3] == ["writes a new file", "destructive", "may replace a file"]


def test_references_are_named_by_the_number_of_their_step() -> None:
    first = call("find", "github", "search", query="x")
    steps = [
        call("s2", "filesystem", "write_file", path="a", content="${find.text}"),
        call("s3", "filesystem", "write_file", path="${find.output.path}", content="Found: ${find.output.count}"),
        call("s4", "filesystem", "read_file", path="out/${find.text}"),
        call("s5", "todo", "add", text="${find.text}, ${find.text}, ${s2.text}."),
        call("s6", "todo", "add", text="$${find.text}"),
    ]
    assert sentences(first, *steps)[1:] == [
        "Writes the result of step 1 to a, in place of anything that is there.",
        (
            'Writes "Found: " followed by the "count" in the result of step 1 to the path given by the "path" in the '
            "result of step 1, in place of anything that is there."
        ),
        'Reads the path "out/" followed by the result of step 1.',
        "Adds the todo a text with the result of step 1 and the result of step 2 in it.",
        'Adds the todo "${find.text}".',
    ]


CONDITIONS = {
    "${s1.output.count} > 3": 'the "count" in the result of step 1 is more than 3',
    'not exists(${s1.output.a}) or ${s1.text} == "no"': (
        'not (the "a" in the result of step 1 exists) or the result of step 1 is "no"'
    ),
    "${s1.output.ok} and (1 <= ${s1.output.n} < 5 or ${s1.text} != null)": (
        'the "ok" in the result of step 1 and (1 is at most the "n" in the result of step 1 and the "n" in the result '
        "of step 1 is less than 5 or the result of step 1 is not nothing)"
    ),
}


@pytest.mark.parametrize(("condition", "words"), CONDITIONS.items())
def test_a_condition_is_described_in_words(condition: str, words: str) -> None:
    steps = call("s1", "github", "ping"), call("s2", "github", "ping", when=condition)
    assert sentences(*steps)[1] == f"Asks the server github to run ping, but only if {words}."


def test_work_for_a_model_names_its_tools() -> None:
    tools = (AllowedTool(server="github", tool="search", max_calls=3), AllowedTool(server="docs", tool="read_file"))
    work = AgentStep(id="s1", kind="agent", instruction="Look into it", tools=tools)
    text = AgentStep(id="s2", kind="agent", instruction="Sum up: ${s1.text}")
    assert sentences(work, text, effect=Effect.READ) == [
        (
            'Gives the model this work: "Look into it". It may use search of github (at most 3 times) and read_file of '
            "docs (once)."
        ),
        'Gives the model this work: "Sum up: " followed by the result of step 1. It may use no tools.',
    ]


def test_a_reused_result_is_told() -> None:
    pinned = {"task_id": "t", "head": "h", "results": {"s1": {"digest": "d", "open_world": False}}}
    rerun = PinnedRerun.model_validate(pinned)
    assert sentences(call("s1", "github", "ping"), rerun=rerun) == [
        "Takes the result of the earlier task and calls nothing. There it was: Asks the server github to run ping."
    ]


EFFECTS: list[tuple[Effect, dict[str, Any] | None, str]] = [
    (Effect.UNKNOWN, {"readOnlyHint": True}, "effect unknown; the server says it only reads"),
    (Effect.UNKNOWN, {"destructiveHint": False}, "effect unknown; the server says it destroys nothing"),
    (Effect.UNKNOWN, {"readOnlyHint": "true"}, "effect unknown; the server says nothing about it"),
    (Effect.UNKNOWN, None, "effect unknown; the server says nothing about it"),
    (Effect.READ, None, "only reads"),
    (Effect.WRITE, {"readOnlyHint": True}, "writes"),
    (Effect.DESTRUCTIVE, {"destructiveHint": True}, "destructive"),
    (Effect.DESTRUCTIVE, None, "may destroy"),
]


@pytest.mark.parametrize(("effect", "hints", "text"), EFFECTS)
def test_the_claim_of_a_server_is_told_where_it_is_not_believed(
    effect: Effect, hints: dict[str, Any] | None, text: str
) -> None:
    (told,) = describe(call("s1", "github", "ping"), effect=effect, hints=hints)
    assert (told.effect, told.effect_text) == (effect, text)


@pytest.mark.parametrize(
    ("state", "effect", "text"),
    [
        (None, Effect.DESTRUCTIVE, "may replace a file"),
        (MISSING, Effect.WRITE, "writes a new file"),
        (EXISTS, Effect.DESTRUCTIVE, "replaces a file"),
    ],
)
def test_only_a_write_that_replaces_a_file_is_destructive(state: FileState | None, effect: Effect, text: str) -> None:
    write = call("s1", "filesystem", "write_file", path="a", content="x")
    (told,) = describe(write, files={("filesystem", "a"): state} if state else {}, effect=Effect.DESTRUCTIVE)
    assert (told.effect, told.effect_text) == (effect, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=8,
)


@given(st.sampled_from([(server, tool) for server, tool, _, _ in SENTENCES]), json_values, st.text(min_size=1))
def test_no_argument_breaks_a_sentence_or_hides_in_it(named: tuple[str, str], value: Any, key: str) -> None:
    names = ("path", "content", "text", "a", "b", "id", "status", "lines", "sentences", "expression", "pattern", key)
    step = ToolStep(id="s1", kind="tool", server=named[0], tool=named[1], arguments=dict.fromkeys(names, value))
    (sentence,) = sentences(step)
    assert sentence.endswith(".")
    assert not has_hidden(sentence)
    assert len(sentence) < 3000
