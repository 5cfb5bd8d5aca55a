import time

import pytest

from agent_runtime.domain.written_calls import find_written_call

NAMES = {"f__look", "look", "f.look", "f/look"}
CALL = '{"name": "f__look", "arguments": {"x": "a"}}'


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        f"```json\n{CALL}\n```",
        f"I will look it up.\n\n```json\n{CALL}\n```",
        f"I will look it up:\n{CALL}",
        f"[{CALL}, {CALL}]",
        f'{{"tool_calls": [{{"id": "c1", "type": "function", "function": {CALL}}}]}}',
        '{"name": "look", "parameters": {}}',
        '{\n  "tool": "f.look",\n  "args": {}\n}',
        '{"action": "functions.f__look", "action_input": "a"}',
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"Let me look.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_response>\nfine\n</tool_response>\nIt is fine.",
        f"```\n<tool_call>{CALL}</tool_call>\n```",
        "<tool_call>f__look\n<arg_key>x</arg_key>\n<arg_value>a</arg_value>\n</tool_call>",
        "<function=f__look>\n<parameter=x>\na\n</parameter>\n</function>\n</tool_call>",
        '<function_calls>\n<invoke name="f__look">\n</invoke>\n</function_calls>',
        f"[TOOL_CALLS][{CALL}]",
        '[TOOL_CALLS]f__look[ARGS]{"x": "a"}',
        f"functools[{CALL}]",
        f"<|tool_call|>{CALL}",
        '<|tool_calls_section_begin|><|tool_call_begin|>functions.f__look:0<|tool_call_argument_begin|>{"x": "a"}',
        '<\uff5ctool▁calls▁begin\uff5c><\uff5ctool▁call▁begin\uff5c>function<\uff5ctool▁sep\uff5c>f__look\n{"x": "a"}',
        f"<|python_tag|>{CALL}",
        '<|tool_call_start|>[f__look(x="a")]<|tool_call_end|>',
        '<tool_call>{"name": "web_search", "arguments": {"q": "a"}}</tool_call>',
        'f__look(x="a")',
        '[f__look(x="a")]',
        '```python\nprint(default_api.f__look(x="a"))\n```',
        'First I look.\n```tool_code\nresult = f__look(x="a")\nprint(result)\n```\nThen I tell.',
    ],
)
def test_a_call_in_words_is_found(text: str) -> None:
    assert find_written_call(text, text, NAMES)


def test_a_call_in_a_channel_of_its_own_is_found() -> None:
    answer = '<|channel|>commentary to=functions.f__look <|constrain|>json<|message|>{"x": "a"}<|call|>'
    assert find_written_call(answer, "", NAMES) == "f__look"
    assert find_written_call("<think>I go to=sleep</think>", "", NAMES) is None


@pytest.mark.parametrize(
    "text",
    [
        "It is fine.",
        "",
        f"I made the call {CALL}, and it is fine.",
        f"The model answers with a call:\n```json\n{CALL}\n```\nNothing else is sent.",
        f"The format is:\n```\n<tool_call>\n{CALL}\n</tool_call>\n```\nQwen uses it.",
        "[TOOL_CALLS] is how Mistral marks a call, as of f__look.",
        "<tool_call> marks a call in Qwen's format, and look is a tool.",
        "`<function=f__look>` begins a call.",
        '{"name": "Ann", "arguments": ["she is right"]}',
        '{"name": "look", "size": 4}',
        '{"name": "look"}',
        '{"name": "look", "arguments": {"x": 1}, "result": "fine"}',
        f'[{CALL}, {{"name": "other", "arguments": {{}}}}]',
        'look("a") returned 4.',
        "```python\nprint(look(1))\n```\nThis prints 4.",
        "[1, 2, 3]",
        "[]",
        '{"tool_calls": []}',
        '{"broken": ',
        "{" * 5000,
        "[" * 5000,
    ],
)
def test_a_result_that_speaks_of_calls_is_a_result(text: str) -> None:
    assert find_written_call(text, text, NAMES) is None


def test_without_tools_a_call_in_words_is_a_result() -> None:
    for text in (CALL, f"<tool_call>{CALL}</tool_call>", "[TOOL_CALLS][]", "look(1)"):
        assert find_written_call(text, text, ()) is None


@pytest.mark.parametrize(
    "text", ["<tool_call>\n", "```\n", "[TOOL_CALLS][\n", "{\n", "look(", "```tool_code\n", " ", "\n"]
)
def test_a_large_text_is_read_fast(text: str) -> None:
    whole = text * (300_000 // len(text))
    started = time.process_time()
    find_written_call(whole, whole, NAMES)
    assert time.process_time() - started < 4
