"""Which calls the operator denies: the one word that no approval, no policy and no newer plan overrules.

A denial is about the text of a call, and errs on the side of denying:

* A path (`options.path`) walks objects by name. It goes through a list into every element (`files.path`), or into one
  by its number (`files.0`); `*` stands for any name and any element. A name that holds dots is found too.
* The value there is compared as text: strings as they are, anything else as compact JSON (`5`, `true`, `null`; 5.0 is
  `5`). An object or a list matches as a whole, or where a text, a number, `true`, `false` or `null` inside it does,
  however deep.
* An argument that the call does not have matches nothing, not even `*`, though the server may put in a default.
* Nothing is normalised. `*` matches `/` and line breaks too; `/etc/*` matches `/etc/../home` and does not match
  `/home/../etc/passwd`, `//etc/passwd` or a link. What a server must never reach is for its root, its sandbox and
  its own account to keep from it: a denial by argument guards against mistakes, one without against everything.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from agent_runtime.domain.references import as_text, strings
from agent_runtime.domain.schemas import OpenText
from agent_runtime.domain.tools import Denial, ServerDenial, ToolServer
from agent_runtime.domain.values import JsonObject, JsonValue


def with_denials(entries: Iterable[ToolServer], denials: Iterable[ServerDenial]) -> tuple[ToolServer, ...]:
    """The entries of the registry, each with what the settings deny of it beside what it denies itself."""
    everywhere = tuple(denials)
    return tuple(
        entry.model_copy(
            update={"deny": (*entry.deny, *(denial for denial in everywhere if fnmatchcase(entry.id, denial.server)))}
        )
        for entry in entries
    )


def find_denial(denials: Iterable[Denial], tool: str, arguments: JsonObject) -> str | None:
    """Why a call of this tool of a server may not be made, of all that is denied of that server; None where it may."""
    mine = (denial for denial in denials if fnmatchcase(tool, denial.tool))
    return next((denial.told for denial in mine if applies(denial, arguments)), None)


def applies(denial: Denial, arguments: JsonObject) -> bool:
    """Whether a denial that is about this tool forbids these arguments, as far as they are known.

    A string that is `Open` matches nothing yet, and what holds one does not match as a whole.
    """
    return all(
        any(fnmatchcase(text, pattern) for value in _follow_path(arguments, path.split(".")) for text in _texts(value))
        for path, pattern in denial.arguments.items()
    )


def _follow_path(value: JsonValue, path: list[str]) -> Iterator[JsonValue]:
    """What a path leads to, in every way that it can be read."""
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
    """The known texts of a value: of the whole, and of everything in it that is neither object nor list."""
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
