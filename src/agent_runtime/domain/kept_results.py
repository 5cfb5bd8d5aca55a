"""What a journal keeps of the result of a call: what it can hold, and read back."""

from pydantic_core import PydanticSerializationError, from_json, to_json

from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import digest_of_bytes, is_deeper_than

MOST_RESULT_DEPTH = 100
"""How deep the output of a call may be nested: with the arguments it is put into (64 at most) it can still be read
back from the journal, where JSON ends at 200."""


def fit_result(result: StoredResult, limit: int) -> StoredResult:
    """A result as the journal can hold it and read it back: valid UTF-8 and JSON, cut where it is over `limit` bytes.

    An output that is no JSON, or nested deeper than `MOST_RESULT_DEPTH`, is cut too.
    """
    text = result.text.encode("utf-8", "replace")
    output = b""
    try:
        if result.output is not None:
            output = to_json(result.output, inf_nan_mode="null")
        fits = len(text) + len(output) <= limit and not is_deeper_than(result.output, MOST_RESULT_DEPTH)
        value = from_json(output) if output and fits else None
    except (PydanticSerializationError, ValueError, RecursionError):
        fits = False
    if not fits:
        return _cut(result, text, output, limit)
    return result.model_copy(update={"text": text.decode(), "output": value, "size": len(text) + len(output)})


def _cut(result: StoredResult, text: bytes, output: bytes, limit: int) -> StoredResult:
    update = {
        "text": text[:limit].decode("utf-8", "ignore"),
        "output": None,
        "cut": True,
        "size": len(text) + len(output),
        "digest": digest_of_bytes(text + output),
    }
    return result.model_copy(update=update)
