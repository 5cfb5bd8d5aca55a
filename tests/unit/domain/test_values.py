import hashlib

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_runtime.domain.values import Identifier, canonical, deeper_than, digest

scalars = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e9, 1e9) | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


class Named(BaseModel):
    name: Identifier


@given(values)
def test_a_digest_is_the_sha_256_of_the_rfc_8785_form(value: object) -> None:
    assert digest(value) == "sha256:" + hashlib.sha256(rfc8785.dumps(value)).hexdigest()  # type: ignore[arg-type]


@given(st.dictionaries(st.text(max_size=4), values, min_size=2, max_size=5))
def test_the_order_of_keys_does_not_change_a_digest(value: dict[str, object]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\ud800": 1}])
def test_what_rfc_8785_cannot_carry_exactly_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical({"a": [value]})


def test_a_value_nested_too_deeply_to_be_walked_is_refused() -> None:
    value: list[object] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(ValueError, match="recursion"):
        canonical(value)
    assert deeper_than(value, 64)


def test_depth_counts_arrays_and_objects_and_nothing_else() -> None:
    assert not deeper_than("text", 0)
    assert not deeper_than([1, {"a": "b"}], 2)
    assert deeper_than([1, {"a": "b"}], 1)
    assert deeper_than([1, {"a": []}], 2)


@pytest.mark.parametrize("name", ["s1", "a", "A-b_9", "x" * 64])
def test_a_letter_then_letters_digits_underscores_and_hyphens_name_a_step(name: str) -> None:
    assert Named(name=name).name == name


@pytest.mark.parametrize("name", ["", "1s", "s 1", "s/1", "s\n", "x" * 65, "é", "-a"])
def test_anything_else_is_no_identifier(name: str) -> None:
    with pytest.raises(ValidationError, match="must start with a letter"):
        Named(name=name)
