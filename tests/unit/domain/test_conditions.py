import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.conditions import MOST_CHARACTERS, condition_references, evaluate_condition, read_condition
from agent_runtime.domain.errors import ConditionFailedError
from agent_runtime.domain.references import Reference
from agent_runtime.domain.tools import StoredResult

RESULTS = {
    "a": StoredResult(
        text="three", output={"n": 3, "half": 0.5, "yes": True, "none": None, "list": [1, "x"], "map": {"k": 1}}
    ),
    "b": StoredResult(text="", output=None),
    "cut": StoredResult(text="x", cut=True),
}


@pytest.mark.parametrize(
    "text",
    [
        "${a.output.n} == 3",
        "${a.output.n} == 3.0",
        "3 == ${a.output.n}",
        "${a.output.n} != 4",
        "2 < ${a.output.n} <= 3",
        "${a.output.half} >= 0.5",
        "${a.output.n} > -1",
        "${a.text} == 'three'",
        '${a.text} < "z"',
        "'hre' in ${a.text}",
        "${a.text} not in 'one two'",
        "'x' in ${a.output.list}",
        "1 in ${a.output.list}",
        "true not in ${a.output.list}",
        "'k' in ${a.output.map}",
        "${a.output.yes}",
        "${a.output.yes} == true",
        "${a.output.yes} != 1",
        "not not ${a.output.yes}",
        "${a.output.none} == null",
        "${b.output} == null",
        "exists(${a.output.n})",
        "not exists(${a.output.none})",
        "not exists(${a.output.gone})",
        "not exists(${cut.text})",
        "not exists(${gone.text})",
        "exists(${a.output.gone}) and ${a.output.gone} > 3 or ${a.output.yes}",
        "(${a.output.n} == 1 or ${a.output.n} == 3) and not ${b.output} != null",
        "${a.text}=='three'",
    ],
)
def test_a_condition_holds(text: str) -> None:
    assert evaluate_condition(text, RESULTS) is True
    assert evaluate_condition(f"not ({text})", RESULTS) is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${a.output.n} > 'x'", "3 and x, which are not of one kind"),
        ("${a.output.yes} < 2", "not of one kind"),
        ("${a.output.none} < 2", "not of one kind"),
        ("1 in ${a.output.n}", "not of one kind"),
        ("1 in ${a.text}", "not of one kind"),
        ("${a.output.n}", "is 3, not true or false"),
        ("not ${a.text}", "is three, not true or false"),
        ("${a.output.gone} == 1", "no 'gone' in output of step 'a'"),
        ("${cut.text} == 'x'", "over the limit"),
        ("${gone.text} == 'x'", "step 'gone' has no result"),
    ],
)
def test_a_condition_that_cannot_be_evaluated_says_why(text: str, said: str) -> None:
    read_condition(text)
    with pytest.raises(ConditionFailedError, match=said):
        evaluate_condition(text, RESULTS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "${a.text",
        "${a.nothing} == 1",
        "${a.text} = 1",
        "${a.text} ==",
        "'${a.text}' == 'x'",
        "1 == 1",
        "true",
        "'a'",
        "3",
        "-${a.output.n} > 1",
        "${a.text} is null",
        "${a.output.n} + 1 > 2",
        "${a.output}.n > 2",
        "${a.output}[0] > 2",
        "len(${a.text}) > 2",
        "exists(1)",
        "exists(a)",
        "exists()",
        "exists(${a.text}, ${b.text})",
        "exists(${a.text}) == true",
        "(${a.text} == 'x') == true",
        "(not ${a.output.yes}) in [1]",
        "${a.text} in ['x']",
        "${a.text} == b'x'",
        "${a.text} == f'{1}'",
        "${a.output.n} == 1j",
        "${a.text} == None",
        "[x for x in ${a.output.list}]",
        "lambda: 1",
        "(yield)",
        "${a.text} if ${a.output.yes} else 1",
        "(x := ${a.text})",
        "_ref0_ == 1",
        "${a.output.yes} or _\N{FULLWIDTH LATIN SMALL LETTER R}ef7_",
        "${a.output.yes} or _\N{FULLWIDTH LATIN SMALL LETTER R}ef0_",
        "${a.text} == \N{FULLWIDTH LATIN SMALL LETTER T}rue",
        "\N{FULLWIDTH LATIN SMALL LETTER E}xists(${a.text})",
        "${a.text} == '_ref0_'",
        "${a.text} == '\\x41'",
        "__import__('os').system('true')",
        "${a.text} == 'x'; 1",
        "${a.text} == 'x' # no",
        "\0",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|reference|compare|quotes|exists|_ref"):
        read_condition(text)
    assert condition_references(text) == frozenset()


def test_a_condition_that_only_an_earlier_version_could_read_fails_its_step() -> None:
    with pytest.raises(ConditionFailedError, match="cannot be evaluated"):
        evaluate_condition("${a.output.yes} or _\N{FULLWIDTH LATIN SMALL LETTER R}ef7_", RESULTS)


def test_the_references_of_a_condition_are_known() -> None:
    assert condition_references("${a.text} == ${b.output.n.0} or exists(${a.text})") == {
        Reference("a", "text"),
        Reference("b", "output", ("n", "0")),
    }
    assert condition_references(None) == frozenset()


@given(st.text(alphabet="${}ab.text() =<>!notandri'\"1\n\\[]:#", max_size=60))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        condition = read_condition(text)
    except ValueError:
        return
    try:
        assert evaluate_condition(text, RESULTS) in {True, False}
    except ConditionFailedError as error:
        assert condition.text in str(error)  # noqa: PT017 - whether it is raised depends on the text


def test_a_condition_nested_as_deep_as_can_be_is_judged() -> None:
    half = MOST_CHARACTERS // 2 - 20
    for text in ("(" * half + "${a.text} == 'x'" + ")" * half, "not " * (half // 2) + "${a.output.yes}"):
        try:
            evaluate_condition(text, RESULTS)
        except ConditionFailedError as refused:
            assert "is not a condition" in str(refused)  # noqa: PT017 - Python's parser has a limit of its own
