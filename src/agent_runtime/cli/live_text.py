"""Show at a terminal what a language model writes now."""

import sys
from typing import TextIO

from agent_runtime.text.escaping import escape_hidden


class LiveText:
    """Shows pieces of text as they come, dim and on lines of their own, if `stream` is a terminal; else nothing.

    `enabled` False shows nothing at all.
    """

    def __init__(self, *, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._enabled = enabled and self._stream.isatty()
        self._inside_line = False

    def show(self, text: str) -> None:
        """Show the next piece of text, with hidden characters escaped."""
        if not (self._enabled and text):
            return
        from rich.console import Console  # noqa: PLC0415 - not needed for --help, nor without a terminal
        from rich.text import Text  # noqa: PLC0415 - likewise

        console = Console(file=self._stream, highlight=False)
        console.print(Text(escape_hidden(text, keep="\n"), style="dim"), end="", soft_wrap=True)
        self._stream.flush()
        self._inside_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Begin a new line if a piece of text has not ended its own, so that a message can follow."""
        if self._inside_line:
            self._stream.write("\n")
            self._stream.flush()
            self._inside_line = False
