"""Find variables in the notations of other programs, such as `${TOKEN}`, which are not replaced here."""

import re
from collections.abc import Iterator

from agent_runtime.text.escaping import one_line

_PLACEHOLDER = re.compile(
    r"\$\{\{[^{}]*\}\}"  # ${{ secrets.TOKEN }}
    r"|\$\{(?!(?:env|file):[^{}])[^{}]*\}"  # ${TOKEN}, ${TOKEN:-default}, ${input:token}, ${workspaceFolder}
    r"|(?<!\$)\{env:[^{}]*\}"  # {env:TOKEN}
)
_NAMED = re.compile(r"\$?\{\{?\s*(?:[a-z]+[:.])?(?P<name>[a-z_]\w*)\s*(?::?[-=?].*)?\}\}?", re.IGNORECASE | re.DOTALL)
_DOLLAR = re.compile(r"(?:\S*[\s=:])?\$[A-Z_][A-Z0-9_]+")
"""`$TOKEN` as a whole value, or at its end. It may be a password, so it is not shown."""

_LONGEST_SHOWN = 60


def without_placeholders(text: str) -> str:
    """Return the text without variables in the notations of other clients."""
    return _PLACEHOLDER.sub("", text)


def correct_placeholders(text: str) -> Iterator[str]:
    """Yield what to write instead of each variable in the notation of another program, as a sentence."""
    for match in _PLACEHOLDER.finditer(text):
        shown = one_line(match[0][:_LONGEST_SHOWN])
        named = _NAMED.fullmatch(match[0])
        instead = f": write ${{env:{named['name']}}}" if named else ""
        yield f"{shown} is not replaced, but passed on unchanged; {_OURS}{instead}"
    if _DOLLAR.fullmatch(text):
        yield f"a variable written as $NAME is not replaced, but passed on unchanged; {_OURS}"


_OURS = "only ${env:NAME} and ${file:/path} are replaced"


def convert_placeholders(text: str) -> str:
    """Return the text with each variable in the notation of another program as `${env:NAME}`, if it has a name."""
    if whole := re.fullmatch(r"\$([A-Za-z_]\w*)", text):
        return f"${{env:{whole[1]}}}"
    return _PLACEHOLDER.sub(_convert, text)


def _convert(match: re.Match[str]) -> str:
    kind, _, name = re.sub(r":[-=?].*$", "", match[0].strip("${} "), flags=re.DOTALL).rpartition(":")
    name = name.removeprefix("secrets.")
    if name in _FOLDERS:
        return _FOLDERS[name]
    named = re.sub(r"\W+", "_", name).strip("_")
    if not named or named[0].isdigit():
        return match[0]
    return f"${{env:{named.upper() if kind == 'input' else named}}}"


_FOLDERS = {"workspaceFolder": ".", "userHome": "${env:HOME}"}
