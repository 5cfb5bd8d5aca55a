"""Find variables in the notations of other programs, such as `${TOKEN}`, which are not replaced here."""

import re
from collections.abc import Iterator

from agent_runtime.text.escaping import one_line

_PLACEHOLDER = re.compile(
    r"\$\{\{[^{}]*\}\}"  # ${{ secrets.TOKEN }}
    r"|\$\{(?!(?:env|file):[^{}])[^{}]*\}"  # ${TOKEN}, ${TOKEN:-default}, ${input:token}, ${workspaceFolder}
    r"|(?<!\$)\{env:[^{}]*\}"  # {env:TOKEN}
)
_NAMED = re.compile(
    r"\$?\{\{?\s*(?:input:(?P<question>[a-z_][\w-]*)|(?:[a-z]+[:.])?(?P<name>[a-z_]\w*))\s*(?::?[-=?].*)?\}\}?",
    re.IGNORECASE | re.DOTALL,
)
_FOLDERS = {"workspaceFolder": ".", "userHome": "${env:HOME}"}
_DOLLAR = re.compile(r"(?:\S*[\s=:])?\$[A-Z_][A-Z0-9_]+")
"""`$TOKEN` as a whole value, or at its end. It may be a password, so it is not shown."""

_LONGEST_SHOWN = 60


def without_placeholders(text: str) -> str:
    """Return the text without variables in the notations of other clients."""
    return _PLACEHOLDER.sub("", text)


def correct_placeholders(text: str) -> Iterator[str]:
    """Yield what to write instead of each variable in the notation of another program, as a sentence."""
    for match in _PLACEHOLDER.finditer(text):
        shown, instead = one_line(match[0][:_LONGEST_SHOWN]), _find_replacement(match[0])
        yield f"{shown} is not replaced, but passed on unchanged; {_OURS}" + (f": write {instead}" if instead else "")
    if _DOLLAR.fullmatch(text):
        yield f"a variable written as $NAME is not replaced, but passed on unchanged; {_OURS}"


_OURS = "only ${env:NAME} and ${file:/path} are replaced"


def convert_placeholders(text: str) -> str:
    """Return the text with what to write instead of each variable in the notation of another program, if it has a
    name.
    """
    if whole := re.fullmatch(r"\$([A-Za-z_]\w*)", text):
        return f"${{env:{whole[1]}}}"
    return _PLACEHOLDER.sub(lambda match: _find_replacement(match[0]) or match[0], text)


def _find_replacement(written: str) -> str | None:
    """Return what to write instead of one variable in the notation of another program; None if it has no name."""
    found = _NAMED.fullmatch(written)
    if found is None:
        return None
    name = found["name"] or found["question"].replace("-", "_").upper()
    return _FOLDERS.get(name, f"${{env:{name}}}")
