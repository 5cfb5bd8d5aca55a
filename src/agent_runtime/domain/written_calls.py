"""Finds a call that a language model wrote as text where it should have made it.

Models do so where the endpoint does not know their format of calls. Such an answer is no result: nothing was called. A
text is taken for a call in these cases only:

* *marked*: a line, outside of blocks of code, begins with the mark of a call (`<tool_call>`, `<function=...>`,
  `[TOOL_CALLS]`, `<|tool_call_begin|>` and their kin), and JSON, a tag or the name follows. It must name an offered
  tool, unless nothing stands before it;
* *addressed*: the answer has no final channel, and a message of it goes `to=functions.NAME`;
* *JSON*: the text ends with an object, or a list of objects, that holds the name of an offered tool, its arguments and
  nothing else. The block of code that ends the text may hold it;
* *code*: the whole text is a call of an offered tool in the manner of Python. In a block of `tool_code` the call may
  stand anywhere.

A text that is one block of code is judged by what the block holds.

So a text that speaks of a call, quotes one in a block of code and goes on, or holds data of that shape with more in it,
is a result.
"""

import json
import re
from collections.abc import Collection
from typing import Any

_MARK = re.compile(
    r"^[ \t]*+(?:<(?:\w+:)?tool_calls?>|<function_calls?>|<function=[\"']?|<invoke name=[\"']?|<start_function_call>"
    r"|<[|\uff5c]tool[_▁]calls?[\w▁]*+[|\uff5c]>|<[|\uff5c]python_tag[|\uff5c]>|\[TOOL_CALLS?\]|functools(?=\[))\s*+",
    re.MULTILINE,
)
_ADDRESS = re.compile(r"\bto=functions\.([\w.-]+)")
_FENCED = re.compile(
    r"^[ \t]*+(```++|~~~++)(?P<language>\w*)[^\n]*+\n(?P<body>.*?)(?:^[ \t]*+\1[ \t]*+$|\Z)", re.MULTILINE | re.DOTALL
)
_JSON_LINE = re.compile(r"^[ \t]*+(?=[{\[])", re.MULTILINE)
_NAME_KEYS = ("name", "function", "function_name", "tool", "tool_name", "action")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "params", "input", "tool_input", "action_input")
_OTHER_KEYS = {"id", "type", "call_id", "index"}
_REACH = 400
"""How far after its mark a call names its tool, in characters."""

_MOST_STARTS = 8
"""At how many lines JSON that ends the text may begin."""


def find_written_call(answer: str, text: str, names: Collection[str]) -> str | None:
    """Return the name of the tool that a model calls in words; None where the answer is no call.

    `text` is the answer without its thoughts. `names` are the spellings of the tools that were offered.
    """
    if not text.strip():
        found = _ADDRESS.search(answer)
        return found[1] if found else None
    if not names:
        return None
    whole = _FENCED.fullmatch(text.strip())
    text = whole["body"] if whole and whole["language"] != "tool_code" else text
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    name = rf"(?<![\w.-])(?:functions\.|default_api\.|call:)?(?P<name>{known})(?![\w-])"
    return _find_marked(text, name) or _find_json(text, names) or _find_code(text, name)


def _find_marked(text: str, name: str) -> str | None:
    plain = _FENCED.sub(lambda block: " " * len(block[0]), text)
    for mark in _MARK.finditer(plain):
        after = text[mark.end() : mark.end() + _REACH]
        if not re.match(rf"[{{\[<\uff5c]|function[<\uff5c]|{name}", after) and mark[0].strip()[-1] not in "='\"":
            continue
        if found := re.search(name, after):
            return found["name"]
        if not text[: mark.start()].strip() and text.rstrip()[-1] in "}])>":
            return re.split(r"[^\w.-]", after.lstrip("{[<\"'"), maxsplit=1)[0] or "a tool"
    return None


def _find_json(text: str, names: Collection[str]) -> str | None:
    blocks = [block for block in _FENCED.finditer(text) if not text[block.end() :].strip()]
    body = (blocks[-1]["body"] if blocks else text).strip()
    for start in [*_JSON_LINE.finditer(body)][:_MOST_STARTS]:
        try:
            value = json.loads(body[start.end() :], strict=False)
        except (ValueError, RecursionError):
            continue
        return _read_name(value, names)
    return None


def _read_name(value: Any, names: Collection[str]) -> str | None:
    """Return the name of the tool that this JSON value calls."""
    if isinstance(value, list):
        found = [_read_name(item, names) for item in value]
        return found[0] if found and all(found) else None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        return _read_name(value["function"], names) if not value.keys() - {"function", *_OTHER_KEYS} else None
    if value.keys() == {"tool_calls"}:
        return _read_name(value["tool_calls"], names)
    named = [key for key in _NAME_KEYS if key in value]
    given = [key for key in _ARGUMENT_KEYS if key in value]
    if len(named) != 1 or len(given) != 1 or value.keys() - {*named, *given, *_OTHER_KEYS}:
        return None
    name = value[named[0]]
    return name if isinstance(name, str) and name.removeprefix("functions.") in names else None


def _find_code(text: str, name: str) -> str | None:
    body = text.strip()
    block = _FENCED.search(text)
    if block and block["language"] == "tool_code" and (found := re.search(rf"{name}\(", block["body"])):
        return found["name"]
    found = re.fullmatch(rf"\[?(?:print\()?(?:await )?{name}\(.*\)\]?;?", body, re.DOTALL)
    return found["name"] if found else None
