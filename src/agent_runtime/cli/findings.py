"""The findings of the doctor, and its checks of packages that a server's command downloads."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from agent_runtime.domain.tools import StdioServer, ToolServer


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. Only `fail` sets the exit code 1."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str


_PINNED_NPM = re.compile(r"(@[^@/]+/)?[^@/]+@v?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")
_PINNED_PYPI = re.compile(r"[^@=]+(==|@)\d+(\.\d+)*([a-z0-9.+!-]*)")
_PACKAGE_RUNNERS = {
    "npx": (_PINNED_NPM, {"-p", "--package"}),
    "bunx": (_PINNED_NPM, {"-p", "--package"}),
    "uvx": (_PINNED_PYPI, {"--from", "--with"}),
    "pipx": (_PINNED_PYPI, {"--spec"}),
}
_RUNNERS_BY_WORDS = {
    ("npm", "exec"): "npx",
    ("pnpm", "dlx"): "npx",
    ("yarn", "dlx"): "npx",
    ("uv", "tool"): "uvx",
    ("pipx", "run"): "pipx",
}
_VALUE_OPTIONS = frozenset({"--python", "-c", "--call", "--index", "--index-url", "--cache", "--prefix", "--registry"})


def packages_of(entry: ToolServer) -> Iterator[Finding]:
    """Yield warnings about packages that an entry downloads when it starts, if their version may change."""
    if not isinstance(entry, StdioServer):
        return
    runner, words = _runner(entry.config.command, list(entry.config.args))
    if runner is None:
        return
    pattern, options = _PACKAGE_RUNNERS[runner]
    check = f"package of {entry.id}"
    unpinned = [name for name in _package_names(words, options) if not _is_path(name) and not pattern.fullmatch(name)]
    by_option = not options.isdisjoint(word.partition("=")[0] for word in words)
    exact = "NAME==VERSION" if by_option and pattern is _PINNED_PYPI else "NAME@VERSION"
    for name in unpinned:
        detail = f"{name} has no exact version, so what runs may change at any time: write {exact}"
        yield Finding(check, "warn", detail)
    if not unpinned and runner in {"npx", "bunx"} and {"-y", "--yes"} & set(words):
        detail = f"{runner} -y may download it when the server starts; install it, and name the installed command"
        yield Finding(check, "warn", detail)


def _runner(command: str, args: list[str]) -> tuple[str | None, list[str]]:
    name = PurePath(command).name.removesuffix(".cmd")
    if name in _PACKAGE_RUNNERS and name != "pipx":
        return name, args
    by_words = _RUNNERS_BY_WORDS.get((name, args[0])) if args else None
    words = args[1:]
    if by_words == "uvx" and words[:1] == ["run"]:
        words = words[1:]
    return by_words, words


def _package_names(words: Sequence[str], options: set[str]) -> Iterator[str]:
    """Yield the packages that the words tell a package runner to run, without the arguments of the package."""
    found = False
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in options:
            found = True
            yield value if equals else next(rest, "")
        elif name in _VALUE_OPTIONS:
            if not equals:
                next(rest, None)
        elif not word.startswith("-"):
            if not found:
                yield word
            return


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))
