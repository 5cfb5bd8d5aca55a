import base64
import json
import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime.models.repetition import (
    LEAST_BLANK,
    LEAST_COPIES,
    LEAST_IN_FORM,
    LEAST_TEXT,
    LONGEST_PIECE,
    RepetitionDetector,
)

STEP = '{"id": "s1", "title": "Add", "kind": "tool", "server": "calculator", "tool": "add", "arguments": {"a": 1}}, '
DICE = random.Random(1)  # noqa: S311 - for texts, not for secrets
PARAGRAPH = "".join(DICE.choices("abcdefgh ", k=LONGEST_PIECE))


def ends_repeating(text: str) -> bool:
    return RepetitionDetector().finds_in(text)


def cut(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(0, len(text), size))


def written_until_found(text: str, size: int = 4, least: int = LEAST_TEXT) -> int | None:
    """Return how many characters were written when the repetition was found; None if it was not."""
    detector = RepetitionDetector(least)
    written = 0
    for piece in cut(text, size):
        written += len(piece)
        if detector.write(piece):
            return written
    return None


@pytest.mark.parametrize(
    "piece",
    ["a", "ab", "0, ", "ha ha ha, ", "I think so.\n", STEP, f"{STEP} {' ' * 200}x", PARAGRAPH],
    ids=lambda piece: f"{len(piece)} characters",
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_piece_that_comes_again_and_again_is_found(piece: str, size: int) -> None:
    begun = '{"goal": "Add", "steps": ['
    found = written_until_found(begun + piece * (60_000 // len(piece)), size)
    assert found is not None
    if size < LEAST_TEXT:
        assert found <= len(begun) + max(LEAST_TEXT, LEAST_COPIES * len(piece)) + 512 + size


@pytest.mark.parametrize("piece", ["0", "5", "2 * (3 + 4) = 10.5. ", STEP])
def test_a_plan_that_repeats_itself_is_found_earlier_than_another_text(piece: str) -> None:
    text = '{"title": "Add", "steps": [{"a": ' + piece * (3000 // len(piece))
    found = written_until_found(text, least=LEAST_IN_FORM)
    assert found is not None
    assert found <= 40 + LEAST_IN_FORM + 2 * len(piece) + 512
    assert written_until_found(text) is None
    assert RepetitionDetector(LEAST_IN_FORM).finds_in(text)


@pytest.mark.parametrize("size", [5, 1000])
def test_a_plan_may_hold_what_only_looks_like_a_loop(size: int) -> None:
    for text in ("boom " * 180, "=" * 900, PARAGRAPH * 7, rows(200), LEGITIMATE["steps that differ in their id"]):
        assert written_until_found(text, size, LEAST_IN_FORM) is None


def test_white_space_without_end_is_found_early() -> None:
    for blank in (" ", "\n", "\n  ", "\t\r\n"):
        found = written_until_found('{"goal": ' + blank * 4000)
        assert found is not None
        assert found <= LEAST_BLANK + 512


@pytest.mark.slow
@settings(max_examples=30)
@given(piece=st.text(min_size=1, max_size=LONGEST_PIECE), begun=st.text(max_size=300), more=st.integers(0, 2000))
def test_any_piece_is_found_whatever_came_before_and_wherever_it_stops(piece: str, begun: str, more: int) -> None:
    least = max(LEAST_TEXT, LEAST_COPIES * len(piece)) + len(piece)
    text = begun + (piece * (least // len(piece) + more))[: least + more]
    assert ends_repeating(text)


def rows(count: int) -> str:
    return "".join(f"| {n} | {n * 7 % 100} | open | nobody | 2026-01-{n % 28 + 1:02} |\n" for n in range(count))


LEGITIMATE = {
    "a table": rows(2000),
    "a list of objects": json.dumps([{"id": n, "name": "item", "state": "open"} for n in range(2000)], indent=8),
    "numbers": ", ".join(map(str, range(9000))),
    "base64": base64.b64encode(DICE.randbytes(30_000)).decode(),
    "a small picture in base64, mostly empty": base64.b64encode(b"BM" + bytes(2000) + b"\xff" * 500).decode(),
    "deeply nested JSON": json.dumps(json.loads("[" * 60 + "1" + "]" * 60), indent=16),
    "a ruler under a heading": f"Results\n{'=' * 3000}\n" + rows(20),
    "seven copies of a long paragraph": PARAGRAPH * 7,
    "a drum": "boom " * 700,
    "a wide gap": "left" + " " * 900 + "right",
    "identical rows, then others": "| 0 | 0 | 0 |\n" * 250 + rows(50),
    "steps that differ in their id": "".join(STEP.replace("s1", f"s{n}") for n in range(200)),
}


@pytest.mark.parametrize("text", LEGITIMATE.values(), ids=LEGITIMATE)
@pytest.mark.parametrize("size", [5, 1000])
def test_what_only_looks_alike_is_left_alone(text: str, size: int) -> None:
    assert written_until_found(text, size) is None
    assert not ends_repeating(text)


def test_a_repetition_that_was_left_again_does_not_count_in_a_whole_text() -> None:
    assert ends_repeating("no " * 3000)
    assert not ends_repeating("no " * 3000 + "yes")


@pytest.mark.parametrize("nasty", ["a" * LONGEST_PIECE + "b", "a" * 500 + "b", "ab" * 400 + "c", "x"])
def test_the_cost_of_a_piece_does_not_grow_with_the_text(nasty: str) -> None:
    text = "".join(f"{nasty}{n}" for n in range(200_000 // len(nasty)))
    began = time.process_time()
    assert written_until_found(text) is None
    assert time.process_time() - began < 4
