"""Finds out which model an endpoint has, where the settings name none."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from agent_runtime.config import OpenAISettings
from agent_runtime.importing import one_import_at_a_time
from agent_runtime.models.answer_reader import ResponseInfo
from agent_runtime.models.failures import Failures

if TYPE_CHECKING:
    from agent_runtime.models.endpoint_client import Client

_LIST_S = 10.0
"""The seconds that an endpoint has to list its models: people wait for it when they approve a plan."""

_LIST_BYTES = 1024 * 1024
_MOST_SHOWN = 20
_LONGEST_NAME = 200

_NO_CHAT = re.compile(
    r"embed|rerank|minilm|whisper|transcri|\btts\b|speech|moderation|dall-e|\bimage|diffusion|\b(bge|gte|e5|clip)\b"
    r"|[:-]cloud$",
    re.IGNORECASE,
)
"""The names of models that write no answers, and of Ollama's that run elsewhere: they are used only where named."""


async def find_model(settings: OpenAISettings, failures: Failures, known: str) -> str:
    """Ask an endpoint for the names of its models, and return that of the one to use.

    It is `known`, the one that was found before, as long as the endpoint lists it. Else it is the only one that can
    chat, or the first of several if the endpoint is on this machine, where all of them are the operator's own.
    Raises: Failure, which names the models where the choice is not clear.
    """
    names = await list_names(settings, failures)
    return known if known in names else choose_model(names, settings, failures)


async def list_names(settings: OpenAISettings, failures: Failures) -> list[str]:
    """Return the names of the models that the endpoint lists, each once. Raises: Failure."""
    quick = settings.model_copy(update={"timeout_s": min(settings.timeout_s, _LIST_S)})
    client = await asyncio.to_thread(_open_client, quick)
    from agent_runtime.models.endpoint_client import to_failure  # noqa: PLC0415 - imported there

    info = ResponseInfo(streamed=False)
    try:
        async with aclosing(client), asyncio.timeout(_LIST_S):
            return list(dict.fromkeys(read_names(await client.list_models(info))))
    except TimeoutError as error:
        raise failures.make_timed_out(_LIST_S) from error
    except Exception as error:  # garbage makes the library raise anything
        failure = to_failure(error, info, failures)
        raise failures.make_unlisted() if failure.code == "model_unknown" else failure from error


def _open_client(settings: OpenAISettings) -> "Client":
    with one_import_at_a_time:
        from agent_runtime.models.endpoint_client import open_client  # noqa: PLC0415 - takes 1 s, so not on the loop

    return open_client(settings, answer_bytes=_LIST_BYTES)


def read_names(answer: Any) -> Iterator[str]:
    """Yield the names in a list of models: OpenAI's form, and those of others."""
    listed = answer.get("data") or answer.get("models") if isinstance(answer, dict) else answer
    for entry in listed if isinstance(listed, list) else ():
        name = entry.get("id") or entry.get("name") if isinstance(entry, dict) else entry
        if isinstance(name, str) and name.strip() and len(name) <= _LONGEST_NAME:
            yield name


def choose_model(names: Sequence[str], settings: OpenAISettings, failures: Failures) -> str:
    """Return the name of the model to use. Raises: Failure, which names the models where the choice is not clear."""
    fitting = [name for name in names if not _NO_CHAT.search(name)]
    if fitting and (len(fitting) == 1 or settings.on_loopback):
        return fitting[0]
    shown = ", ".join(map(repr, names[:_MOST_SHOWN]))
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    raise failures.make_undecided(f"{shown}{more}", several=bool(fitting))
