import json
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.errors import ReferenceFailedError
from agent_runtime.domain.references import Reference, as_text, is_whole, parse_template, references_in, resolve
from agent_runtime.domain.tools import StoredResult

LIMIT = 1000
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,5}", fullmatch=True)
segments = st.text(st.characters(exclude_characters=".{}", codec="utf-8"), min_size=1, max_size=5)
paths = st.lists(segments, max_size=3).map(tuple)
references = st.builds(Reference, names, st.just("output"), paths) | st.builds(Reference, names, st.just("text"))
# A dollar at the end of literal text would make the next reference an escape.
literals = st.text(st.characters(exclude_characters="$", codec="utf-8"), max_size=6) | st.just("${")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(segments, inner, max_size=3),
    max_leaves=8,
)


def escape(part: str | Reference) -> str:
    return part.replace("${", "$${") if isinstance(part, str) else str(part)


def join(template: Iterable[str | Reference]) -> list[str | Reference]:
    out: list[str | Reference] = []
    for part in template:
        last = out[-1] if out else None
        if isinstance(part, str) and isinstance(last, str):
            out[-1] = last + part
        elif part != "":
            out.append(part)
    return out


@given(st.lists(literals | references, max_size=6))
def test_what_was_written_is_what_is_parsed(parts: list[str | Reference]) -> None:
    text = "".join(map(escape, parts))
    assert join(parse_template(text)) == join(parts)
    assert list(references_in([{"a": text}])) == [part for part in parts if isinstance(part, Reference)]


@given(references, json_values)
def test_a_string_that_is_one_reference_keeps_the_type_of_the_value(reference: Reference, value: object) -> None:
    output = value
    for name in reversed(reference.path):
        output = {name: output}
    results = {reference.step: StoredResult(text="t", output=output)}
    found = resolve({"a": [str(reference)]}, results, LIMIT)["a"][0]
    wanted = "t" if reference.part == "text" else value
    assert found == wanted
    assert type(found) is type(wanted)
    assert is_whole(parse_template(str(reference)))


@given(st.text(max_size=12) | st.sampled_from(["${s1.text}", "$${", "${", "${s2.output}"]))
def test_text_that_a_reference_puts_in_is_never_scanned_again(inserted: str) -> None:
    results = {"s1": StoredResult(text=inserted, output=inserted)}
    assert resolve("${s1.text}", results, LIMIT) == inserted
    assert resolve("<${s1.text}>${s1.output}", results, LIMIT) == f"<{inserted}>{inserted}"


@given(st.text(max_size=20))
def test_any_text_can_be_written_literally(text: str) -> None:
    assert resolve(text.replace("${", "$${"), {}, LIMIT) == text


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none())
def test_a_scalar_inside_text_reads_back_as_itself(value: object) -> None:
    assert json.loads(as_text(value)) == value


def test_inside_text_a_value_is_rendered_as_compact_json() -> None:
    output = {"list": [1, {"é": None}], "whole": 5.0, "half": 0.5, "yes": True, "text": "as it is"}
    results = {"s": StoredResult(output=output)}
    found = {name: resolve(f"-${{s.output.{name}}}", results, LIMIT) for name in output}
    assert found == {"list": '-[1,{"é":null}]', "whole": "-5", "half": "-0.5", "yes": "-true", "text": "-as it is"}


@given(st.lists(json_values, min_size=1, max_size=4), st.data())
def test_a_path_walks_lists_by_number_and_objects_by_name(items: list[object], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(items) - 1))
    results = {"s": StoredResult(output={"rows": items})}
    assert resolve(f"${{s.output.rows.{index}}}", results, LIMIT) == items[index]
    with pytest.raises(ReferenceFailedError, match=f"it is a list of {len(items)}"):
        resolve(f"${{s.output.rows.{len(items)}}}", results, LIMIT)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("b", "it has 'a', 'empty'"),
        ("a.x", "it is 5"),
        ("empty.x", "it is empty"),
        ("list.-1", "it is a list of 1"),
        ("list.²", "it is a list of 1"),
        ("list." + "9" * 5000, "it is a list of 1"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(path: str, said: str) -> None:
    results = {"s": StoredResult(output={"a": 5, "empty": {}, "list": [1]})}
    with pytest.raises(ReferenceFailedError, match=said):
        resolve("${s.output." + path + "}", results, LIMIT)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("rows.0.n.x", "no 'x' in output.rows.0.n of step 's'; it is 5."),
        ("rows.0.x", "no 'x' in output.rows.0 of step 's'; it has 'n', 'm'."),
        ("rows.1", "no '1' in output.rows of step 's'; it is a list of 1."),
        ("x", "no 'x' in output of step 's'; it has 'rows', 'long', 'wide'."),
        ("long.x", f"no 'x' in output.long of step 's'; it is {'y' * 80}."),
        ("wide.x", f"no 'x' in output.wide of step 's'; it has {', '.join(repr(f'k{n}') for n in range(20))}."),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(path: str, said: str) -> None:
    output = {"rows": [{"n": 5, "m": 6}], "long": "y" * 100, "wide": {f"k{n}": n for n in range(30)}}
    with pytest.raises(ReferenceFailedError) as caught:
        resolve("${s.output." + path + "}", {"s": StoredResult(output=output)}, LIMIT)
    assert str(caught.value) == "${s.output." + path + "}: " + said


def test_a_number_may_be_the_name_of_a_property() -> None:
    assert resolve("${s.output.0}", {"s": StoredResult(output={"0": "zero"})}, LIMIT) == "zero"


def test_without_structured_output_every_path_is_null() -> None:
    assert resolve("${s.output.a.b}", {"s": StoredResult(text="x")}, LIMIT) is None


@pytest.mark.parametrize("text", ["${s.text}", "${s.output}", "see ${s.text}"])
def test_a_result_that_was_cut_or_is_binary_cannot_be_used(text: str) -> None:
    with pytest.raises(ReferenceFailedError, match=r"2000 bytes, over the limit of 1000"):
        resolve(text, {"s": StoredResult(text="x", cut=True, size=2000)}, LIMIT)
    with pytest.raises(ReferenceFailedError, match=r"2000 bytes.* binary"):
        resolve(text, {"s": StoredResult(text="x", binary=True, size=2000)}, LIMIT)


def test_a_step_without_a_result_cannot_be_used() -> None:
    with pytest.raises(ReferenceFailedError, match="step 's' has no result"):
        resolve("${s.text}", {}, LIMIT)


@pytest.mark.parametrize(
    "text",
    [
        "${",
        "${}",
        "${s}",
        "${s.txt}",
        "${s.text.a}",
        "${s.output.}",
        "${s.output..a}",
        "${1.text}",
        "a ${b c.text}",
        "${a${b.text}}",
    ],
)
def test_a_reference_that_is_not_well_formed_is_refused_and_refers_to_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="is not a reference: write"):
        parse_template(text)
    assert [r.step for r in references_in([text])] == []


def test_an_endless_reference_is_not_repeated_in_full() -> None:
    with pytest.raises(ValueError, match="is not a reference") as caught:
        parse_template("${" + "x" * 100_000 + "}")
    assert str(caught.value).startswith(f"'${{{'x' * 78}' is not a reference: write ${{STEP.text}} or ${{STEP.output")
    assert len(str(caught.value)) < 300


def test_keys_and_everything_that_is_not_a_string_are_left_alone() -> None:
    value = {"${s.text}": [1, None, True, ("a",)]}
    assert resolve(value, {}, LIMIT) == {"${s.text}": [1, None, True, ["a"]]}


BIG = {"s": StoredResult(text="x" * 1000, output={"a": ["y" * 1000], "n": 1})}


@pytest.mark.parametrize("text", ["${s.text}", "-${s.text}", "${s.output}", "${s.output.a}", "${s.output.a.0}"])
@pytest.mark.parametrize("spread", [False, True])
def test_what_references_put_in_is_bounded_in_all(text: str, *, spread: bool) -> None:
    def value(count: int) -> object:
        return {"a": [text] * count} if spread else {"a": text * count}

    resolve(value(4), BIG, LIMIT, argument_bytes=5000)
    with pytest.raises(ReferenceFailedError, match=r"more than 5000 bytes \(limits\.argument_bytes\)"):
        resolve(value(5), BIG, LIMIT, argument_bytes=5000)


def test_the_limit_counts_bytes_of_texts_and_of_names_exactly() -> None:
    value = {"né": ["ab", "${s.output.n}", True]}
    assert resolve(value, BIG, LIMIT, argument_bytes=6) == {"né": ["ab", 1, True]}
    with pytest.raises(ReferenceFailedError, match="more than 5 bytes"):
        resolve(value, BIG, LIMIT, argument_bytes=5)


@pytest.mark.slow
def test_a_short_plan_never_becomes_a_large_value() -> None:
    results = {"s": StoredResult(text="x" * 250_000)}
    tracemalloc.start()
    try:
        with pytest.raises(ReferenceFailedError, match="more than 1048576 bytes"):
            resolve({"a": "${s.text}" * 100_000}, results, LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


def test_texts_of_any_length_leave_nothing_behind() -> None:
    tracemalloc.start()
    try:
        for number in range(20):
            parse_template(f"{number} " + "x" * 200_000)
            parse_template(f"{number} " + "${s.text}" * 2000)
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()


def test_a_whole_number_is_written_without_a_point_as_far_as_it_is_exact() -> None:
    assert as_text(1000.0) == "1000"
    assert as_text(2.0**53 - 1) == "9007199254740991"
    assert as_text(2.0**53) == "9007199254740992.0"
