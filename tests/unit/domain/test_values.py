import hashlib
import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_runtime.domain.values import Identifier, as_digested, canonical, digest, has_more_parts, is_deeper_than


def values_of(integers: st.SearchStrategy[int]) -> st.SearchStrategy[object]:
    return st.recursive(
        st.none() | st.booleans() | integers | st.floats(-1e9, 1e9) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=8,
    )


values = values_of(st.integers(-(2**53) + 1, 2**53 - 1))


class Named(BaseModel):
    name: Identifier


@given(values)
def test_the_canonical_form_is_rfc_8785_wherever_that_can_carry_the_value(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]
    assert digest(value) == "sha256:" + hashlib.sha256(rfc8785.dumps(value)).hexdigest()  # type: ignore[arg-type]


@given(st.dictionaries(st.text(max_size=4), values, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, object]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@given(values_of(st.integers(-(2**200), 2**200)))
def test_every_integer_is_carried_exactly(value: object) -> None:
    assert json.loads(canonical(value)) == value


def test_neighbours_beyond_the_exact_range_of_doubles_have_digests_of_their_own() -> None:
    assert canonical({"id": 2**53 + 1}) == b'{"id":9007199254740993}'
    assert len({digest(2**53 + n) for n in range(100)}) == 100
    assert digest(2**53) == digest(float(2**53))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, {1: 2}, 10**5000, object(), b"bytes"],
    ids=["nan", "infinity", "half a pair", "half a pair as a name", "no name", "digits", "object", "bytes"],
)
def test_what_json_cannot_carry_exactly_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical({"a": [value]})


def test_a_value_nested_too_deeply_to_be_walked_is_refused() -> None:
    value: list[object] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(ValueError, match="recursion"):
        canonical(value)
    assert is_deeper_than(value, 64)


def test_depth_counts_arrays_and_objects_and_nothing_else() -> None:
    assert not is_deeper_than("text", 0)
    assert not is_deeper_than([1, {"a": "b"}], 2)
    assert is_deeper_than([1, {"a": "b"}], 1)
    assert is_deeper_than([1, {"a": []}], 2)


@pytest.mark.parametrize("name", ["s1", "a", "A-b_9", "x" * 64])
def test_a_letter_then_letters_digits_underscores_and_hyphens_name_a_step(name: str) -> None:
    assert Named(name=name).name == name


@pytest.mark.parametrize("name", ["", "1s", "s 1", "s/1", "s\n", "x" * 65, "é", "-a"])
def test_anything_else_is_no_identifier(name: str) -> None:
    with pytest.raises(ValidationError, match="must start with a letter"):
        Named(name=name)


def parts(value: object) -> int:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(items) + sum(map(parts, items))


@given(values, st.integers(0, 30))
def test_parts_are_the_fields_and_entries_at_every_level(value: object, limit: int) -> None:
    assert has_more_parts(value, limit, free=()) == (parts(value) > limit)


def test_what_is_in_a_free_field_is_not_counted() -> None:
    value = {"steps": [{"id": 1, "arguments": {"a": [1] * 100}}] * 3, "arguments": [1] * 100}
    assert not has_more_parts(value, 7, {"arguments"})
    assert has_more_parts(value, 6, {"arguments"})
    assert has_more_parts(value, 300, {"id"})


@pytest.mark.parametrize(
    ("number", "sent"),
    [(5.0, "5"), (-0.0, "0"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (0.5, "0.5"), (2**60, str(2**60))],
)
def test_a_number_is_sent_as_it_was_hashed(number: float, sent: str) -> None:
    value = as_digested({"a": [number]})
    assert json.dumps(value, separators=(",", ":")) == f'{{"a":[{sent}]}}'
    assert digest(value) == digest({"a": [number]})
