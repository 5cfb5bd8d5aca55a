import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.builtin.servers import SERVERS, create
from agent_runtime.domain.conditions import evaluate_condition
from agent_runtime.domain.contract import Limits
from agent_runtime.domain.drafting import find_faults
from agent_runtime.domain.errors import MissingToolError, PlanningError
from agent_runtime.domain.plan import Plan, ToolStep
from agent_runtime.domain.references import parse_template, resolve
from agent_runtime.domain.tools import BuiltinConfig, StoredResult, Tool
from unit.planners.corpus import ACCEPTED, FETCHED, PAGE, REFUSED, Steps
from unit.planners.planning import FETCH, all_tools, foreign, plan, schema, steps_of, tools_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def tools(tmp_path: Path) -> list[Tool]:
    return await all_tools(tmp_path)


@pytest.mark.parametrize(("prompt", "expected"), ACCEPTED, ids=[prompt[:60] for prompt, _ in ACCEPTED])
async def test_what_is_understood_becomes_exactly_these_steps(prompt: str, expected: Steps, tools: list[Tool]) -> None:
    made = await plan(prompt, tools)
    assert steps_of(made) == expected
    assert not list(find_faults(made, Limits(), {tool.key: tool for tool in tools}, agent_steps=False))


@pytest.mark.parametrize(("prompt", "part"), REFUSED, ids=[prompt[:60] for prompt, _ in REFUSED])
async def test_what_is_in_doubt_is_refused_with_the_part_and_the_remedy(
    prompt: str, part: str, tools: list[Tool]
) -> None:
    with pytest.raises(PlanningError) as refused:
        await plan(prompt, tools)
    assert f'"{part}"' in str(refused.value)
    assert "OPENAI_API_KEY" in str(refused.value)


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("Delete old.txt if it exists", "has its condition at the end. Conditions come first"),
        ("replace Monday with Tuesday in letter.txt", "not changed in other ways"),
        ("empty ideas.txt", "not changed in other ways"),
        ("make a backup of notes.txt", "is not understood"),
        ("back up notes.txt", "say where the copy goes"),
        ("summarize every file", "say 'all files'"),
        ("what time is it", "asks for the time of day"),
        ("Read old.txt and delete it", "or the name of the file"),
    ],
)
async def test_a_refusal_says_what_stands_in_the_way(prompt: str, why: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError) as refused:
        await plan(prompt, tools)
    assert why in str(refused.value)


def test_the_corpus_is_as_large_as_it_has_to_be() -> None:
    assert len(ACCEPTED) >= 150
    assert len(REFUSED) >= 50


@pytest.mark.parametrize("prompt", ["", "   \n", "?!", "...", "\U0001f44d"])
async def test_a_prompt_without_words_is_refused(prompt: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match="holds no instruction"):
        await plan(prompt, tools)


async def test_a_prompt_of_too_many_words_is_refused_where_they_are_too_many(tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match=r'^The part "1\+1\+1'):
        await plan("+".join("1" * 4_000), tools)


@pytest.mark.parametrize("prompt", ["help", "Help!", "help me", "What can you do?"])
async def test_who_asks_for_help_is_told_what_to_write(prompt: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match=r'write what is to be done, as in "Read notes\.txt'):
        await plan(prompt, tools)


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        ("sumarize notes.txt", '"summarize" instead of "sumarize"'),
        ("Raed notes.txt and summarize it", '"read" instead of "Raed"'),
        ("coutn the wrods in notes.txt", '"count" instead of "coutn" and "words" instead of "wrods"'),
        ("delte notes.txt", '"delete" instead of "delte"'),
        ("Plaese read notes.txt", '"please" instead of "Plaese"'),
    ],
)
async def test_a_wrong_letter_is_asked_about_and_never_guessed(prompt: str, meant: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match="is not understood") as refused:
        await plan(prompt, tools)
    assert f". Did you mean {meant}? Nothing is planned" in str(refused.value)


@pytest.mark.parametrize("prompt", ["frobnicate notes.txt", "sumarize the moon", "a " * 70 + "delte notes.txt"])
async def test_nothing_is_asked_where_no_letter_would_help(prompt: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError) as refused:
        await plan(prompt, tools)
    assert "Did you mean" not in str(refused.value)


async def test_a_text_is_written_with_its_spelling(tools: list[Tool]) -> None:
    made = await plan("Write sumarize to x.txt", tools)
    assert steps_of(made) == [("write_file", {"path": "x.txt", "content": "sumarize"})]


async def test_without_a_tool_that_copies_a_file_is_read_and_written(tools: list[Tool]) -> None:
    made = await plan("copy a.txt to b.txt", [*NPM_FILES, *without_files(tools)])
    assert steps_of(made) == [
        ("read_text_file", {"path": "a.txt"}),
        ("write_file", {"path": "b.txt", "content": "${s1.text}"}),
    ]


async def test_whether_a_file_exists_is_no_condition_where_files_are_listed_as_text(tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match="which this file server says only as text"):
        await plan("If a.txt exists, read a.txt", [*NPM_FILES, *without_files(tools)])


async def test_the_steps_keep_the_order_of_the_prompt(tools: list[Tool]) -> None:
    made = await plan('Write "a" to a.txt, list my todos, add 1 and 2, then save the result to r.txt', tools)
    for before, after in zip(made.steps, made.steps[1:], strict=False):
        assert before.id in after.needs
    assert made.steps[3].depends_on == ()  # the reference implies it


async def test_every_step_has_a_title_and_the_goal_is_the_prompt(tools: list[Tool]) -> None:
    made = await plan("  Read notes.txt and summarize it \n", tools)
    assert made.goal == "Read notes.txt and summarize it"
    assert [step.title for step in made.steps] == ["Read notes.txt", "Summarize the text"]


async def test_a_plan_over_the_limit_of_steps_is_refused(tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match="max_steps"):
        await plan("add 1 and 2, then double it, then double it", tools, max_steps=2)


async def test_a_disabled_tool_is_named(tools: list[Tool]) -> None:
    without = [tool for tool in tools if tool.name != "write_file"]
    with pytest.raises(PlanningError, match=r"needs the tool 'write_file' of a built-in filesystem server"):
        await plan("write hi to x.txt", without)


async def test_the_servers_may_have_other_names(tmp_path: Path) -> None:
    renamed = [tool for name in SERVERS for tool in await tools_of(name, tmp_path, f"my-{name}")]
    made = await plan("Add 1 and 2, add a todo to rest, and read a.txt", renamed)
    assert [step.server for step in made.steps if isinstance(step, ToolStep)] == [
        "my-calculator",
        "my-todo",
        "my-filesystem",
    ]


async def test_a_write_that_could_go_to_two_servers_is_refused(tmp_path: Path) -> None:
    both = await tools_of("filesystem", tmp_path, "left") + await tools_of("filesystem", tmp_path, "right")
    with pytest.raises(PlanningError, match="left, right"):
        await plan("write hi to x.txt", both)


NPM_FILES = [
    foreign("files", "read_file", "path"),
    foreign("files", "read_text_file", "path"),
    foreign("files", "write_file", "path", "content"),
    foreign("files", "list_directory", "path"),
    foreign("files", "search_files", "path", "pattern"),
    foreign("files", "get_file_info", "path"),
]
"""The tools of the npm filesystem server, as far as they play roles."""


@pytest.mark.parametrize("folder", ["src/agent_runtime/sample_data", "./sample_data", "sample_data/"])
async def test_the_names_of_the_sample_folder_mean_the_files_root(folder: str, tools: list[Tool]) -> None:
    made = await plan(f"Create a file {folder}/container_test.txt with content: AGENT OK".replace("//", "/"), tools)
    assert steps_of(made) == [("write_file", {"path": "container_test.txt", "content": "AGENT OK"})]
    made = await plan(f"Write hello to a file called x.txt in the {folder} directory", tools)
    assert steps_of(made) == [("write_file", {"path": "x.txt", "content": "hello"})]
    made = await plan(f"list the files in {folder}", tools)
    assert steps_of(made) == [("list_directory", {"path": "."})]


async def test_another_folder_of_the_source_is_not_the_files_root(tools: list[Tool]) -> None:
    made = await plan("read src/agent_runtime/x.txt", tools)
    assert steps_of(made) == [("read_file", {"path": "src/agent_runtime/x.txt"})]


async def test_a_built_in_server_is_preferred_to_others(tools: list[Tool]) -> None:
    made = await plan("read notes.txt", [*NPM_FILES, *tools])
    assert [(step.server, step.tool) for step in made.steps if isinstance(step, ToolStep)] == [
        ("filesystem", "read_file")
    ]


async def test_of_other_servers_the_first_of_the_registry_plays_the_role(tools: list[Tool]) -> None:
    others = [foreign("first", "write_file", "path", "content"), *NPM_FILES]
    made = await plan("write hi to x.txt, then read notes.txt", [*others, *without_files(tools)])
    assert [(step.server, step.tool) for step in made.steps if isinstance(step, ToolStep)] == [
        ("first", "write_file"),
        ("files", "read_text_file"),
    ]


@pytest.mark.parametrize("more", ["mode", "owner"])
async def test_a_tool_that_asks_for_more_than_a_role_gives_does_not_play_it(more: str, tools: list[Tool]) -> None:
    strict = foreign("files", "write_file", "path", "content", more)
    with pytest.raises(MissingToolError, match="'write_file' of a built-in filesystem server, or of one like it"):
        await plan("write hi to x.txt", [strict, *without_files(tools)])


async def test_a_calculator_of_others_must_promise_the_result_as_a_number() -> None:
    words = foreign("sums", "add", "a", "b")
    with pytest.raises(MissingToolError, match="'add'"):
        await plan("add 1 and 2", [words])
    numbers = foreign("sums", "add", "a", "b", outputSchema=schema("result"))
    assert steps_of(await plan("add 1 and 2", [numbers])) == [("add", {"a": 1, "b": 2})]


def without_files(tools: list[Tool]) -> list[Tool]:
    return [tool for tool in tools if tool.server != "filesystem"]


async def test_a_file_is_picked_from_a_server_that_lists_files_as_text(tools: list[Tool]) -> None:
    made = await plan("Read a file and summarize its contents", [*NPM_FILES, *without_files(tools)])
    assert steps_of(made) == [
        ("search_files", {"pattern": "**/*.txt", "path": "."}),
        ("head", {"text": "${s1.text}", "lines": 1}),
        ("read_text_file", {"path": "${s2.text}"}),
        ("summarize", {"text": "${s3.text}"}),
    ]


@pytest.mark.parametrize("prompt", ["read the second file", "how many files are there"])
async def test_what_a_listing_as_text_cannot_give_is_refused(prompt: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError, match=prompt):
        await plan(prompt, [*NPM_FILES, *without_files(tools)])


@pytest.mark.parametrize(("prompt", "expected"), FETCHED)
async def test_a_page_is_fetched_where_a_server_fetches_pages(prompt: str, expected: Steps, tools: list[Tool]) -> None:
    assert steps_of(await plan(prompt, [*tools, *FETCH])) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "Write hello to 'https://example.com/x.txt'",
        'Save the text hi in "HTTPS://example.com/x.txt"',
        "Create a file called 'https://example.com/x.txt' with the message hi",
        "Append bye to 'file:///etc/x.txt'",
        "list the files in 'https://example.com/'",
        "make a folder called 'https://example.com'",
        f"write {PAGE} to links.txt",
        f"save {PAGE} to links.txt, then read links.txt",
        "fetch ftp://example.com/a.txt",
        "visit www.example.com",
        f"post {PAGE}",
        f"add a todo to read {PAGE}",
    ],
)
async def test_an_address_is_never_a_file_and_never_guessed_at(prompt: str, tools: list[Tool]) -> None:
    with pytest.raises(PlanningError):
        await plan(prompt, [*tools, *FETCH])


async def test_a_quoted_address_can_be_written_as_text(tools: list[Tool]) -> None:
    made = await plan(f"write '{PAGE}' to links.txt", tools)
    assert steps_of(made) == [("write_file", {"path": "links.txt", "content": PAGE})]


async def test_without_a_server_that_fetches_the_refusal_says_so(tools: list[Tool]) -> None:
    with pytest.raises(MissingToolError, match="of a server that reads web pages, which is not there"):
        await plan(f"fetch {PAGE}", tools)


HOSTILE = {
    "words": "a " * 32_000,
    "verbs": "read a.txt then " * 4_000,
    "destinations": "write hello " + "to x.txt " * 2_900,
    "prepositions": "write " + "to " * 2_900 + "x.txt",
    "brackets": "what is " + "(" * 2_900,
    "signs": "what is " + "- " * 2_900 + "1",
    "sums": "what is " + "one plus " * 1_400 + "one",
    "nesting": "summarize " + "the summary of " * 900 + "a.txt",
    "apostrophes": "'a " * 20_000,
    "quotes": '"a" ' * 2_900,
    "fences": "```" * 21_000,
    "lines": "- \n" * 2_900,
    "block": "Write the following to x.txt:\n" + "read the b\n" * 5_800,
    "colons": "write x:\n" * 900,
    "todos": "add a todo to " + "buy milk and " * 900,
    "questions": "how many lines in " + "in a containing " * 700,
    "halves": "write hello to x.txt and bye to y.txt and " + "a, b and c to z.txt and " * 400,
    "operators": "5 times the word count of notes.txt " + "plus 2 times it " * 700,
    "structures": "write " + "[" * 20_000 + "]" * 20_000 + " to x.json",
    "glued structures": "write [" + "1," * 1_400 + "1] to x.json",
    "scripts": "\u65e5\u672c " * 2_900,
}


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_prompt_is_answered_at_once(prompt: str, tools: list[Tool]) -> None:
    started = time.process_time()
    with suppress(PlanningError):
        await plan(prompt[:65_536], tools)
    # Measured: 10 to 50 ms; the allowance is for a machine with other work.
    assert time.process_time() - started < 4


WORDS = [
    "write", "save", "to", "in", "the", "a", "file", "folder", "called", "with", "containing", "notes.txt", "and", ",",
    "then", "it", "them", "the result", "words", "lines", "count", "of", "summary", "5", "plus", "read", "list", "todo",
    "add", "remind me", "that says", ":", ".", "?", "\n", "'x'", '"y"', "first", "please", "what is", "how many", "-",
    "(", ")", "double", "delete", "mark", "as done", "not", "/", "*.md", "1.", "sample data", "its", "${s1.text}",
]  # fmt: skip
"""The words of the grammar. Random sequences of them reach its corners more often than random text."""


@settings(max_examples=300, deadline=None)
@given(prompt=st.one_of(st.text(max_size=300), st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)))
async def test_any_text_is_planned_or_refused_and_nothing_else(prompt: str) -> None:
    tools = await all_tools()
    try:
        made = await plan(prompt, tools)
    except PlanningError:
        return
    assert not list(find_faults(made, Limits(), {tool.key: tool for tool in tools}, agent_steps=False))


def literal(argument: str) -> str:
    """Return the text that an argument without references stands for."""
    parts = parse_template(argument)
    assert all(isinstance(part, str) for part in parts)
    return "".join(str(part) for part in parts)


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_characters='"\0', exclude_categories=["Cs"]), max_size=200))
async def test_quoted_text_arrives_as_it_stands(text: str) -> None:
    tools = await all_tools()
    for prompt in (f'Write "{text}" to x.txt, then read it', f'create a file called x.txt with the text "{text}".'):
        made = await plan(prompt, tools)
        tool, arguments = steps_of(made)[0]
        assert (tool, arguments["path"], literal(arguments["content"])) == ("write_file", "x.txt", text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_characters="`\0\r", exclude_categories=["Cs"]), max_size=200))
async def test_fenced_text_arrives_as_it_stands(text: str) -> None:
    tools = await all_tools()
    made = await plan(f"Save this to x.txt:\n```\n{text}\n```\nThen list the files", tools)
    assert [tool for tool, _ in steps_of(made)] == ["write_file", "list_directory"]
    assert literal(steps_of(made)[0][1]["content"]) == text


async def carried_out(made: Plan, folder: Path) -> list[str]:
    """Run the steps on the real built-in servers, and return the text of each. Skip what a condition skips."""
    servers = {
        name: create(BuiltinConfig.model_validate({"server": name}), base_dir=folder, data_dir=folder)
        for name in SERVERS
    }
    results: dict[str, StoredResult] = {}
    for step in made.steps:
        assert isinstance(step, ToolStep)
        if not step.needs <= results.keys() or (step.when and not evaluate_condition(step.when, results)):
            continue
        answer = await servers[step.server].call(step.tool, resolve(step.arguments, results, 2**20))
        text = answer["content"][0]["text"]
        assert "isError" not in answer, text
        results[step.id] = StoredResult(text=text, output=answer["structuredContent"])
    return [result.text for result in results.values()]


NOTES = "Buy milk today.\nTODO: call Anna.\nThe weather is fine.\n"
DONE: list[tuple[str, str, dict[str, Any]]] = [
    ("Add 15 and 27, then multiply the result by 2", "84", {}),
    ("What is (3 + 4) * 5 / 2?", "17.5", {}),
    ("What is 15% of 80, plus 3, and finally divided by 5?", "", {}),
    ("Take two thirds of 9, square it and subtract 6", "30", {}),
    ("Read notes.txt, count its words and save the count to count.txt", "", {"count.txt": "10"}),
    ("How many lines are in notes.txt?", "3", {}),
    ("List the files in the sample data folder and write the list to index.txt", "", {"index.txt": "notes.txt"}),
    ("Find the lines containing TODO in notes.txt and save them to t.txt", "", {"t.txt": "TODO: call Anna."}),
    ("Read a file, show its first line and append the lines to log.txt", "", {}),
    ("Show the first line of notes.txt", "Buy milk today.", {}),
    ("Copy notes.txt to the backup folder", "", {"backup/notes.txt": NOTES}),
    ('Write "a ${s1.text} b" to x.txt, then add "c" to it', "", {"x.txt": "a ${s1.text} b\nc"}),
    (
        "Add a todo to buy milk, add another to call Anna, complete the todo about milk, show what is left",
        "2. call Anna",
        {},
    ),
    ("Add two todos: rest, work. Delete todo 1. How many todos do I have?", "1", {}),
    ("Which files mention Anna?", "notes.txt", {}),
    ("Show the last 2 lines of notes.txt", "TODO: call Anna.\nThe weather is fine.", {}),
    ("How often is Anna mentioned in notes.txt?", "1", {}),
    ("Copy notes.txt to a.txt, then rename a.txt to b.txt and count the words in all files", "20", {"b.txt": NOTES}),
    ("Add two todos: rest, work. Complete all todos. Delete all completed todos. How many todos do I have?", "0", {}),
    ("Add the number of words in notes.txt and the number of lines in notes.txt", "13", {}),
]


@pytest.mark.parametrize(("prompt", "last", "files"), DONE, ids=[prompt[:50] for prompt, _, _ in DONE])
async def test_the_plan_does_what_was_asked(
    prompt: str, last: str, files: dict[str, str], tools: list[Tool], tmp_path: Path
) -> None:
    root = tmp_path / "sample_data"
    root.mkdir()
    (root / "notes.txt").write_text(NOTES)
    texts = await carried_out(await plan(prompt, tools), tmp_path)
    assert not last or texts[-1] == last
    assert {name: (root / name).read_text() for name in files} == files


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("notes.txt has more than 9 words", True),
        ("notes.txt has more than 10 words", False),
        ("notes.txt has at least 10 words", True),
        ("notes.txt has exactly 3 lines", True),
        ("notes.txt is shorter than fifty-four characters", False),
        ("the word count of notes.txt is under 10", False),
        ("there are more than 0 open todos", False),
        ("there are at least two files", False),
        ("notes.txt contains anna", True),
        ("notes.txt mentions Bob", False),
        ("notes.txt does not contain Bob", True),
        ("notes.txt exists", True),
        ("otes.txt exists", False),
        ("notes.txt doesn't exist", False),
        ("b.txt is missing", True),
    ],
)
async def test_a_condition_decides_whether_the_rest_is_done(
    condition: str,
    holds: bool,  # noqa: FBT001 - a parameter of pytest
    tools: list[Tool],
    tmp_path: Path,
) -> None:
    root = tmp_path / "sample_data"
    root.mkdir()
    (root / "notes.txt").write_text(NOTES)
    await carried_out(await plan(f"If {condition}, write yes to r.txt and copy r.txt to s.txt", tools), tmp_path)
    assert ((root / "r.txt").exists(), (root / "s.txt").exists()) == (holds, holds)


DOCUMENTS = ["README.md", "docs/start.md", "README.md"]
"""The documents of a first hour, in the order in which people read them; many come back to the first."""
EXAMPLES = re.compile(r'agent-runtime run "(.*?)"|"prompt": "(.*?)"|^```text\n(.*?)```', re.MULTILINE | re.DOTALL)


def list_examples(document: str) -> list[str]:
    """Return the prompts of a document, in order."""
    found = EXAMPLES.findall((ROOT / document).read_text())
    return [prompt for example in found for part in example for prompt in part.splitlines() if part]


async def test_the_examples_of_the_documentation_make_sense_one_after_the_other(
    tools: list[Tool], tmp_path: Path
) -> None:
    (tmp_path / "sample_data").mkdir()
    shutil.copy(ROOT / "sample_data" / "notes.txt", tmp_path / "sample_data")
    (tmp_path / "sample_data" / "hello.txt").write_text("Hello")  # as the README's `agent-runtime call` does
    summary = (await carried_out(await plan("Summarize notes.txt", tools), tmp_path))[-1]
    words = (await carried_out(await plan("Count the words of notes.txt", tools), tmp_path))[-1]
    prompts = [prompt for document in DOCUMENTS for prompt in list_examples(document)]
    said = {prompt: await carried_out(await plan(prompt, tools), tmp_path) for prompt in prompts}
    assert len(said) >= 6
    assert said["Read a file and summarize its contents"][-1] == summary
    assert said["Read notes.txt, count its words and save the count to count.txt"][1] == words
    assert said["Add 15 and 27, then multiply the result by 2"][-1] == "84"
    assert (tmp_path / "sample_data" / "rain.txt").read_text().startswith("The rain barrels ran dry twice")
    assert (tmp_path / "sample_data" / "summary.txt").read_text() == summary
    assert (
        tmp_path / "sample_data" / "index.txt"
    ).read_text() == "count.txt\nhello.txt\nnotes.txt\nuv_verification.txt"
