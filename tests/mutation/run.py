"""Mutation testing: the domain and the broker are changed in small ways, and each change must make a test fail.

    uv run python tests/mutation/run.py [PART ...]

works on a copy in a temporary folder, so it leaves nothing in the checkout. It ends with 1 if no test notices a change
that `survivors.toml` does not explain. mutmut creates the mutants, runs the tests that reach each one, and ends those
that hang. It changes the bodies of functions and methods, but not tables, fields, and functions with a decorator other
than `@staticmethod` and `@classmethod`.
"""

# ruff: noqa: T201 - a script, which prints

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

HOME = Path(__file__).resolve().parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")
COPIED = ("src", "tests", "sample_data", "pyproject.toml", "config.yaml", "tool_registry.yaml", "README.md")
NOTICED = {"killed", "timeout", "segfault"}


@dataclass(frozen=True)
class Part:
    """The code to change, the tests that must notice, and time limits.

    A mutant is ended when its tests take `slowdown` times as long as without it, plus 10 s. The part fails after
    `most_minutes`.
    """

    name: str
    source: str
    tests: tuple[str, ...]
    workers: int
    slowdown: float
    most_minutes: int


PARTS = (
    Part("domain", "src/agent_runtime/domain/*", ("tests/unit/domain",), 2, 2.0, 25),
    Part("broker", "src/agent_runtime/services/broker.py", ("tests/unit/services",), 2, 1.5, 25),
)


@dataclass(frozen=True, order=True)
class Change:
    """One mutant, identified by its change and not by its line."""

    function: str
    was: str
    now: str

    def __str__(self) -> str:
        return f"[[survivor]]\nin = '{self.function}'\nwas = '''{self.was}'''\nnow = '''{self.now}'''\nwhy = ''\n"

    @property
    def is_wording(self) -> bool:
        """True if it changes only the wording of a sentence: a string with a space, which no program reads."""
        old, new = list(_tokens(self.was)), list(_tokens(self.now))
        if len(old) != len(new):
            return False
        different = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
        return len(different) == 1 and all(text[0] in "\"'" and " " in text for text in different[0])


def _tokens(code: str) -> Iterator[str]:
    with contextlib.suppress(tokenize.TokenError, IndentationError):
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            yield token.string


def main() -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of the domain and the broker.")
    names = [part.name for part in PARTS]
    parser.add_argument("parts", nargs="*", choices=[*names, []], help=f"of {names}; all where none is named")
    chosen = parser.parse_args().parts or names
    listed = listed_survivors()
    unexplained = 0
    for part in PARTS:
        if part.name in chosen:
            with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
                unexplained += judge(part, Path(folder), listed)
    return 1 if unexplained else 0


def listed_survivors() -> dict[Change, str]:
    entries = tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))["survivor"]
    reasons = {Change(entry["in"], entry["was"], entry["now"]): entry["why"].strip() for entry in entries}
    if len(reasons) != len(entries) or not all(reasons.values()):
        raise SystemExit(f"{SURVIVORS}: each survivor is listed once, with a reason.")
    return reasons


def judge(part: Part, folder: Path, listed: dict[Change, str]) -> int:
    """Run the mutants of a part, print the result, and return the number of unexplained survivors."""
    began = time.monotonic()
    run(part, folder)
    verdicts = list(read_verdicts(folder))
    survivors = {change for change, status in verdicts if status not in NOTICED}
    wording = {change for change in survivors if change.is_wording}
    unexplained = sorted(survivors - wording - listed.keys())
    counts = Counter(status for _, status in verdicts)
    if not verdicts:
        raise SystemExit(f"There are no mutants of {part.source}.")
    print(f"{part.name}: {len(verdicts)} mutants in {time.monotonic() - began:.0f} s: {dict(counts)}")
    print(f"  of the survivors, {len(wording)} change wording only and {len(survivors & listed.keys())} are listed")
    here = {change.function.rpartition(":")[0] for change, _ in verdicts}
    for change in sorted(listed.keys() - survivors):
        if change.function.rpartition(":")[0] in here:
            print(f"  no longer survives, take it off the list: {change.function}: {change.now.strip()}")
    for change in unexplained:
        print(f"\nNo test in {', '.join(part.tests)} noticed this change:\n\n{change}")
    if unexplained:
        print(f"Write a test that notices, or list each in {SURVIVORS.relative_to(HOME)} with the reason.")
    return len(unexplained)


def run(part: Part, folder: Path) -> None:
    """Run mutmut in a copy of the project. Raises: SystemExit with its output if it fails."""
    ignored = shutil.ignore_patterns("__pycache__", ".*", "node_modules")
    for name in COPIED:
        if (HOME / name).is_dir():
            shutil.copytree(HOME / name, folder / name, ignore=ignored)
        else:
            shutil.copy(HOME / name, folder)
    (folder / "setup.cfg").write_text(settings_of(part), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(part.workers)]
    (folder / "tmp").mkdir()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder / "tmp")}
    log = folder / "mutmut.log"
    with log.open("w") as said:
        mutmut = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, process_group=0
        )
        try:
            ended = mutmut.wait(timeout=part.most_minutes * 60)
        except subprocess.TimeoutExpired:
            ended = -1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(mutmut.pid, signal.SIGKILL)
    if ended:
        why = f"took longer than {part.most_minutes} minutes" if ended < 0 else f"ended with {ended}"
        raise SystemExit(f"The mutants of {part.name} were not judged: mutmut {why}.\n{log.read_text()[-4000:]}")


def settings_of(part: Part) -> str:
    """Return the settings for mutmut. Workers are forked from a process without caches, which could hide a change."""
    values: dict[str, str | Sequence[str]] = {
        "source_paths": ["src"],
        "only_mutate": [part.source],
        "pytest_add_cli_args_test_selection": part.tests,
        "pytest_add_cli_args": [
            *("--numprocesses=0", "-p", "no:cacheprovider", "-p", "tests.mutation.under_mutation"),
            "--hypothesis-profile=mutation",
        ],
        "also_copy": COPIED[2:],
        "process_isolation": "forkserver",
        "timeout_constant": "10",
        "timeout_multiplier": str(part.slowdown),
        "use_git_change_detection": "false",
    }
    lines = [
        f"{name} = {given}" if isinstance(given, str) else "\n    ".join([f"{name} =", *given])
        for name, given in values.items()
    ]
    return "\n".join(["[mutmut]", *lines, ""])


def read_verdicts(folder: Path) -> Iterator[tuple[Change, str]]:
    with contextlib.chdir(folder):
        for meta in sorted(Path("mutants/src").rglob("*.meta")):
            path = meta.relative_to("mutants").with_suffix("")
            for mutant, exit_code in json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"].items():
                yield read_change(mutant, path), status_by_exit_code[exit_code]


def read_change(mutant: str, path: Path) -> Change:
    module, _, mangled = mutant.partition("__mutmut_")[0].rpartition(".")
    name = mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    lines = get_diff_for_mutant(mutant, path=path).splitlines()[2:]
    was, now = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Change(f"{module}:{name}", was, now)


if __name__ == "__main__":
    sys.exit(main())
