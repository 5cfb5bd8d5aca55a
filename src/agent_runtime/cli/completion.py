"""`agent-runtime completion SHELL`: print a script with which a shell completes commands, options and files."""

import argparse
from collections.abc import Iterator

import shtab

from agent_runtime.cli import output
from agent_runtime.cli.arguments import build_parser


def show(options: argparse.Namespace) -> int:
    """Print the script for the shell."""
    parser = build_parser()
    for action in _list_actions(parser):
        if action.metavar in {"FILE", "EXPORT"}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it
        elif action.metavar == "DIR":
            action.complete = shtab.DIR  # type: ignore[attr-defined]  # likewise
    output.result(shtab.complete(parser, options.shell).rstrip("\n"))
    return 0


def _list_actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield every argument of the parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them; shtab does the same
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - likewise
            for command in action.choices.values():
                yield from _list_actions(command)
