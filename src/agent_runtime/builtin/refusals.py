"""The parts that all built-in servers share without the library of MCP: their limits, words and refusals."""

MAX_TEXT = 1024 * 1024
"""The longest text that a tool accepts or reads, in bytes: 1 MiB."""


class Refusal(Exception):  # noqa: N818 - a tool's considered answer, not a failure of the service
    """The tool refuses, and nothing was changed. The message says why and what to do, and may be shown to anyone."""


def pluralize(count: int, noun: str, nouns: str | None = None) -> str:
    """Return the count with its noun: `1 byte`, `2 bytes`, `0 entries`."""
    return f"{count} {noun if count == 1 else nouns or noun + 's'}"


def split_lines(text: str) -> list[str]:
    """Return the lines of a text without their ends. A last line without an end counts."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]
