"""Results of calls, limited to what a journal can store and read back."""

from collections.abc import Collection

from pydantic_core import PydanticSerializationError, from_json, to_json

from agent_runtime.domain.errors import AgentRuntimeError
from agent_runtime.domain.tools import StoredResult
from agent_runtime.domain.values import digest_of_bytes, is_deeper_than

MOST_RESULT_DEPTH = 100
"""The maximum nesting depth of an output. Inside arguments (64 levels at most) it stays below 200, the depth at which
the journal's JSON parser stops."""


def fit_result(result: StoredResult, limit: int) -> StoredResult:
    """Return the result in a form that the journal can store: valid UTF-8 and JSON, of at most `limit` bytes.

    A larger result is cut: it keeps the start of its text and loses its output. So is one whose output is not JSON or
    is nested deeper than `MOST_RESULT_DEPTH`.
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


def name_images(result: StoredResult, there: Collection[str], most_bytes: int) -> StoredResult:
    """Return the result with references to those of its images that its task has, by their digests in `there`.

    For the others there was no room in `most_bytes`, and its text says so.
    """
    text, named = result.text, []
    for image in result.images:
        if image.digest in there:
            named.append(image.reference)
        else:
            why = f"a task has room for {most_bytes} bytes of images (limits.task_image_bytes)"
            text = text.replace(image.mark, f"not kept: {why}")
    return result.model_copy(update={"text": text, "images": tuple(named)})


def make_unsent(error: AgentRuntimeError, *, unsent: bool) -> StoredResult:
    """Return the result of a call that was not sent. `unsent`: it may be made again."""
    after_s = error.retry_after_s if unsent and error.may_pass else None
    return StoredResult(text=str(error), is_error=True, unsent=unsent, retry_after_s=after_s)
