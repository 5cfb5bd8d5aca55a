"""Texts of servers and models, on one line and without characters that cannot be seen, or fit for UTF-8."""

from agent_runtime.text.escaping import has_hidden, is_hidden


def clean(text: str, limit: int) -> str:
    """Return the text on one line, without control, hidden and reordering characters, shortened to
    `limit` characters.
    """
    head = text[: 4 * limit]
    if has_hidden(head):
        head = "".join(" " if is_hidden(char) else char for char in head)
    line = " ".join(head.split())
    return line if len(line) <= limit and len(text) <= 4 * limit else f"{line[: limit - 4].rstrip()} ..."


def replace_surrogates(text: str) -> str:
    """Return the text with lone surrogates replaced, of which a model may send half a pair."""
    return text.encode("utf-8", "replace").decode()
