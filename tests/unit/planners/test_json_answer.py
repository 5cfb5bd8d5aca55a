import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_runtime.domain.errors import InvalidPlanError
from agent_runtime.domain.plan import AgentStep, AllowedTool, Plan, ToolStep
from agent_runtime.domain.values import JsonValue
from agent_runtime.planners.model.json_answer import MOST_CHARACTERS, NoJsonError, find_pieces, read_object
from agent_runtime.planners.model.plan_reader import Declined, read_plan
from agent_runtime.planners.model.prompt import to_json
from agent_runtime.text.escaping import is_blank

TEXTS = st.text(max_size=20)
SEEN = st.text(min_size=1, max_size=20).filter(lambda text: not is_blank(text))
TITLES = st.just("") | SEEN
IDS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
TOOL_STEPS = st.builds(
    ToolStep,
    id=IDS,
    title=TITLES,
    kind=st.just("tool"),
    server=IDS,
    tool=TEXTS,
    arguments=st.dictionaries(TEXTS, VALUES, max_size=3),
    depends_on=st.lists(IDS, max_size=2).map(tuple),
    when=st.none() | st.just("${s1.output.n} > 3"),
    timeout_s=st.none() | st.floats(1, 100),
    retries=st.integers(0, 10),
)
AGENT_STEPS = st.builds(
    AgentStep,
    id=IDS,
    title=TITLES,
    kind=st.just("agent"),
    instruction=st.text(min_size=1, max_size=20),
    tools=st.lists(st.builds(AllowedTool, server=IDS, tool=TEXTS, max_calls=st.integers(1, 9)), max_size=2).map(tuple),
)
PLANS = st.builds(
    Plan,
    goal=SEEN,
    steps=st.lists(TOOL_STEPS | AGENT_STEPS, min_size=1, max_size=4).map(tuple),
)
PROSE = st.lists(
    st.text(max_size=20).map(lambda text: text.replace("{", "(").replace("[", "("))
    | st.sampled_from(
        ['"', "'", "```", "\\", "}", "]", "{this}", "${s1.text}", "[1]", "{}", "//", "/*", "Here it is: \n"]
    )
).map(" ".join)
WRAPS = st.sampled_from(
    ["{}", "```json\n{}\n```", "```\n{}\n```", "~~~\n{}", "<think>so {{a</think>{}", "<answer>{}</answer>"]
)


@given(plan=PLANS, before=PROSE, after=PROSE, wrap=WRAPS, short=st.booleans(), indent=st.sampled_from([None, 2]))
def test_any_plan_is_found_in_any_prose(
    plan: Plan,
    before: str,
    after: str,
    wrap: str,
    short: bool,  # noqa: FBT001
    indent: int | None,
) -> None:
    whole = json.dumps(plan.model_dump(mode="json"), indent=indent, ensure_ascii=indent is None)
    text = before + wrap.format(to_json(plan) if short else whole) + after
    if wrap.startswith("<think>"):
        text = text[len(before) :]
    assert read_plan(text, [], "unused") == plan


HOSTILE = st.text("{}[]\"'\\/*:,\n ats1", max_size=60) | st.text(max_size=60)


@given(
    text=HOSTILE
    | st.lists(st.sampled_from(['{"steps":', "[", "]", "{", "}", '"a"', ":", ",", "1", "null", "//", "\n"])).map(
        "".join
    )
)
@example('{"steps": [1e999]}')
@example('{"steps": [null, {"id": {}, "kind": [], "tool": 3, "tools": 1, "depends_on": {}}]}')
@example('{"steps": ' + "9" * 5000 + "}")
@example('{"cannot": "\ud800", "steps": {}}')
def test_any_text_is_a_plan_or_a_fault(text: str) -> None:
    try:
        found: object = read_plan(text, [], "goal")
    except (InvalidPlanError, Declined) as said:
        found = str(said)
    assert found


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[",
        "[{",
        '{"',
        '{"a":',
        '{"a":{',
        '{"a":[{',
        "```",
        '"',
        '{"\\"',
        "\\",
        "{}",
        '{"a":1}',
        "[{}]",
        "{ ",
        "{a",
        "//",
        "/*",
        '{"a":"',
        "[{/*",
        "[{//",
        '{"steps":[],',
        "<think>",
        "</think>",
        "a <think>",
        '{"a\n</think>\n',
        "{'a':",
        ",]",
        '{"a":1,}',
        "'",
        "/* *",
        "{//\n",
    ],
)
@pytest.mark.parametrize("start", ["", '{"steps": [', '{"a": "'])
def test_a_megabyte_of_anything_is_read_in_seconds(text: str, start: str) -> None:
    whole = (start + text * MOST_CHARACTERS)[:MOST_CHARACTERS]
    started = time.process_time()
    with pytest.raises(InvalidPlanError):
        read_plan(whole, [], "goal")
    assert time.process_time() - started < 4


def test_a_megabyte_of_digits_quotes_and_commas_in_a_closed_object_is_read_in_under_a_second() -> None:
    for text in ("1,", '"",', '"\\"",', "[],", ",", " ", "9", "{},", "\n", "/**/", '{"a":1},', "{'a':1},"):
        whole = '{"steps": [' + text * ((MOST_CHARACTERS - 20) // len(text)) + "]}"
        started = time.process_time()
        with pytest.raises(InvalidPlanError):
            read_plan(whole, [], "goal")
        assert time.process_time() - started < 4, text


def test_a_piece_that_holds_too_much_is_a_fault() -> None:
    with pytest.raises(NoJsonError, match="more than 100000 strings and brackets"):
        list(find_pieces('{"a": [' + '"",' * 100_000))
    assert read_object('{"a": [' + '"",' * 100_000 + '""]}') is None


def test_a_text_that_holds_too_many_pieces_is_a_fault() -> None:
    with pytest.raises(InvalidPlanError, match="more than 1000 pieces of JSON"):
        read_plan("{} " * 1001, [], "goal")


def test_a_text_that_is_too_long_is_not_read() -> None:
    with pytest.raises(NoJsonError, match="at most 1048576 are read"):
        list(find_pieces(" " * (MOST_CHARACTERS + 1)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2,], }', {"a": [1, 2]}),
        ('{"a": 1, // one\n "b": /* two */ 2}', {"a": 1, "b": 2}),
        ('{"a": "// not /* a */ comment, ]"}', {"a": "// not /* a */ comment, ]"}),
        ('{"a": "// kept", // gone\n}', {"a": "// kept"}),
        ('{"a": "one\ntwo"}', {"a": "one\ntwo"}),
        ('{"a": ",]", "b": [3 , ]}', {"a": ",]", "b": [3]}),
        ('{// first\n"a": "\\"}"}', {"a": '"}'}),
    ],
)
def test_what_is_tolerated_keeps_its_meaning(text: str, value: JsonValue) -> None:
    assert [piece.value for piece in find_pieces(f"So: {text} done")] == [value]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{'a': 1}", "line 1"),
        ("{a: 1}", "line 1"),
        ('{"a": 1, "a": 2}', "'a' comes twice"),
        ('{"a": 1, // x\n "b": 2, "b": 3}', "'b' comes twice"),
        ('{"a": 1/**/2}', "line 1"),
        ('{"a": [1', "not closed"),
        ('{"a": "b', "not closed"),
        ('{"a":' + "[" * 64 + "]" * 64 + "}", "more than 64 deep"),
        ('{"a": ' + "9" * 5000 + "}", "wrong"),
        ('{"a": 1,,}', "line 1"),
    ],
)
def test_what_is_no_json_is_a_fault_that_says_why(text: str, why: str) -> None:
    (piece,) = find_pieces(text)
    assert piece.fault is not None
    assert why in piece.fault


def test_arrays_and_objects_may_be_nested_64_deep() -> None:
    (piece,) = find_pieces('{"a":' + "[" * 63 + "]" * 63 + "}")
    assert piece.fault is None


def test_a_brace_in_the_prose_hides_nothing_after_it() -> None:
    text = 'I refer to ${s1.text} {like this} or [so] {and "that"} {"x": 1} as asked: {"goal": "g"}'
    assert [piece.value for piece in find_pieces(text)] == [{"x": 1}, {"goal": "g"}]


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{", '{"a": 1} x', "{'a': 1}", '{"a": 1,}', '{"a":' * 70 + "1" + "}" * 70]
)
def test_a_whole_object_is_read_without_tolerance(text: str) -> None:
    assert read_object(text) is None


def test_a_whole_object_is_read() -> None:
    assert read_object(' {"a": {"b": [1]}} ') == {"a": {"b": [1]}}


@pytest.mark.parametrize(
    "field", ['"depends_on": [%s]', '"tools": [%s]', '"x": {%s}', '"arguments": {"x": [%s]}', "%s"]
)
def test_a_megabyte_within_one_step_is_read_in_under_a_second(field: str) -> None:
    items = ",".join(f'"{n}":0' if "{%s" in field or field == "%s" else "{}" for n in range(90_000))
    text = '{"steps": [{"kind": "agent", "id": "s1", %s}]}' % (field % items)
    started = time.process_time()
    with pytest.raises(InvalidPlanError):
        read_plan(text, [], "goal")
    assert time.process_time() - started < 4
