import time

import pytest

from agent_runtime.domain.thoughts import SpokenText, cut_thoughts

DRAFT = "Maybe 3? No, that is wrong."


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{DRAFT}\n</think>\n\nThe answer is 4.",
        f"<think>{DRAFT}</think>The answer is 4.",
        f"\n <Think>{DRAFT}</Think> The answer is 4.",
        f"<thinking>{DRAFT}</thinking>\nThe answer is 4.",
        f"<thought>{DRAFT}</thought>\nThe answer is 4.",
        f"<reasoning>{DRAFT}</reasoning>\nThe answer is 4.",
        f"<seed:think>{DRAFT}</seed:think>\nThe answer is 4.",
        f"[THINK]{DRAFT}[/THINK]The answer is 4.",
        f"◁think▷{DRAFT}◁/think▷The answer is 4.",
        f"<|START_THINKING|>{DRAFT}<|END_THINKING|>The answer is 4.",
        f"<|begin_of_thought|>{DRAFT}<|end_of_thought|>The answer is 4.",
        f"<unused94>{DRAFT}<unused95>The answer is 4.",
        f"<think>{DRAFT}</thinking>\nThe answer is 4.",
        "<think>Is `</think>` closing?\n</think>\nHm.\n</think>\nThe answer is 4.",
        f"<think>```\n{DRAFT}</think>\nThe answer is 4.",
        f"{DRAFT}\n</think>\n\nThe answer is 4.",
        f"It is 3.\n<think>{DRAFT}</think>\nIs it?\n</think>\nThe answer is 4.",
        f"{DRAFT}</think>The answer is 4.",
        f"{DRAFT} </think>The answer is 4.",
        "Maybe 3</think>\nThe answer is 4.",
        f"The <think> tag was not written. {DRAFT}</think>x\n</think>\nThe answer is 4.",
        f"<think>{DRAFT}</think>\n<think>Once more.</think>\nThe answer is 4.",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>The answer is 4.",
        f"<|start|>assistant<|channel|>analysis<|message|>{DRAFT}<|channel|>final<|message|>The answer is 4.<|return|>",
        f"{DRAFT}<|end|><|start|>assistant<|channel|>final <|constrain|>text<|message|>The answer is 4.",
        "analysisWe need 4. Maybe 3? No.assistantfinalThe answer is 4.",
    ],
)
def test_thoughts_are_cut_off_however_they_are_marked(text: str) -> None:
    assert cut_thoughts(text) == "The answer is 4."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Sure. <think>{DRAFT}</think> The answer is 4.", "Sure. The answer is 4."),
        (f"The sum:\n<think>{DRAFT}</think>\nis 4.", "The sum:\nis 4."),
        (f"The answer is 4.\n<think>\n{DRAFT}", "The answer is 4."),
        (f"<think>{DRAFT}", ""),
        (f"{DRAFT}\n</think>\n", ""),
        (f"<|channel|>analysis<|message|>{DRAFT}", ""),
    ],
)
def test_only_what_is_no_thought_is_left(text: str, left: str) -> None:
    assert cut_thoughts(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "  The answer is 4.\n",
        "  The marks are <think> and </think>.\n",
        "The line `It is over.</think>` ends it.",
        "The file uses <think> and </think> to mark thoughts.",
        "The file is: <think>\nhello\n</think>\nand ends there.",
        "Replace `<think>` by `<b>`.\n`</think>` is replaced by `</b>`.",
        "The template:\n```jinja\n<think>\n{{ thoughts }}\n</think>\n{{ answer }}\n```\nIt has five lines.",
        "~~~~\n</think>\n~~~~\nis all that there is.",
        "- </think> (closes)\n- <think> (opens)",
        '{"open": "<think>", "close": "</think>"}',
        "I think <thinker> and [think tank] and </thinks> are no marks.",
        "Harmony separates <|channel|>analysis<|message|> from <|channel|>final<|message|>.",
        "analysis of the file: the word assistantfinal comes once.",
    ],
)
def test_a_text_that_speaks_of_marks_is_left_as_it_is(text: str) -> None:
    assert cut_thoughts(text) == text


@pytest.mark.parametrize("text", ["<think>a</think>\n", "</think>", "a <think>", "```x\n", "`", "a. <think>\n"])
def test_a_large_text_of_marks_is_read_fast(text: str) -> None:
    whole = text * (200_000 // len(text))
    started = time.process_time()
    cut_thoughts(whole)
    assert time.process_time() - started < 4


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("The answer is <think>.", "The answer is <think>."),
        (f"\n<think>\n{DRAFT}</think>\n\nIt is 4.", "\n\nIt is 4."),
        (f"[THINK]{DRAFT}[/THINK] <thinking>{DRAFT}</Thinking>It is 4.", "It is 4."),
        (f"<think>{DRAFT}", ""),
        ("<thin air>", "<thin air>"),
        (f"{DRAFT}</think>It is 4.", f"{DRAFT}</think>It is 4."),
    ],
)
def test_thoughts_at_the_beginning_of_a_stream_are_not_passed_on(text: str, heard: str, size: int) -> None:
    pieces: list[str] = []
    spoken = SpokenText(pieces.append)
    for start in range(0, len(text), size):
        spoken.write(text[start : start + size])
    assert "".join(pieces) == heard
    assert "" not in pieces
