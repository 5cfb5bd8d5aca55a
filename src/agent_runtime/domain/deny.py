"""Match calls against the operator's denials, which no approval, policy or newer plan overrides.

A denial compares text and errs on the side of denying:

* A path (`options.path`) descends into objects by name, and into every element of a list (`files.path`) or one element
  by number (`files.0`). `*` matches any name and any element. Names that contain dots are found too.
* The value is compared as text: strings as they are, anything else as compact JSON (`5`, `true`, `null`; 5.0 is `5`).
  An object or list matches as a whole, or if any string, number, `true`, `false` or `null` inside it matches, at any
  depth.
* An argument that the call does not have never matches, not even `*`, although the server may have a default for it.
* Nothing is normalised. `*` matches `/` and line breaks too. `/etc/*` matches `/etc/../home`, but not
  `/home/../etc/passwd`, `//etc/passwd` or a symbolic link.

A denial with arguments therefore guards against mistakes; one without guards against every call of the tool. To keep a
server away from something, use its root, its sandbox and its user account.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from agent_runtime.domain.references import as_text, strings
from agent_runtime.domain.schemas import OpenText
from agent_runtime.domain.tools import Denial, ServerDenial, ToolServer
from agent_runtime.domain.values import JsonObject, JsonValue


def with_denials(entries: Iterable[ToolServer], denials: Iterable[ServerDenial]) -> tuple[ToolServer, ...]:
    """Return the registry entries, each with the denials of the settings added to its own."""
    everywhere = tuple(denials)
    return tuple(
        entry.model_copy(
            update={"deny": (*entry.deny, *(denial for denial in everywhere if fnmatchcase(entry.id, denial.server)))}
        )
        for entry in entries
    )


def find_denial(denials: Iterable[Denial], tool: str, arguments: JsonObject) -> str | None:
    """Return why a call of this tool is denied, or None. `denials` are those of the tool's server."""
    mine = (denial for denial in denials if fnmatchcase(tool, denial.tool))
    return next((denial.told for denial in mine if applies(denial, arguments)), None)


def applies(denial: Denial, arguments: JsonObject) -> bool:
    """Return whether a denial for this tool matches these arguments, as far as they are known.

    An `OpenText` never matches, nor does a value that contains one match as a whole.
    """
    return all(
        any(fnmatchcase(text, pattern) for value in _follow_path(arguments, path.split(".")) for text in _texts(value))
        for path, pattern in denial.arguments.items()
    )


def _follow_path(value: JsonValue, path: list[str]) -> Iterator[JsonValue]:
    """Yield the values at a path, for each way to read it."""
    if not path:
        yield value
    elif isinstance(value, Mapping):
        for length in range(1, len(path) + 1):
            name = ".".join(path[:length])
            if name in value:
                yield from _follow_path(value[name], path[length:])
        if path[0] == "*":
            for item in value.values():
                yield from _follow_path(item, path[1:])
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _follow_path(item, path[1:] if path[0] in {"*", str(index)} else path)


def _texts(value: JsonValue) -> Iterator[str]:
    """Yield the known texts of a value: its own, and those of everything in it that is neither object nor list."""
    if not any(isinstance(text, OpenText) for _, text in strings(value)):
        yield as_text(value)
    if isinstance(value, Mapping | list | tuple):
        yield from (as_text(leaf) for leaf in _leaves(value) if not isinstance(leaf, OpenText))


def _leaves(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item)
    else:
        yield value
