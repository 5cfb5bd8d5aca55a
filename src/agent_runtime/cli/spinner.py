"""A line at a terminal that shows that work goes on, what it is, and for how long."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from agent_runtime.text.escaping import one_line

if TYPE_CHECKING:
    from rich.progress import Progress


@contextmanager
def show_wait(doing: str, *, enabled: bool = True) -> Iterator["Spinner"]:
    """Show what is being done until the block ends. It may print if it pauses the spinner before."""
    spinner = Spinner(enabled=enabled)
    spinner.show(doing)
    try:
        yield spinner
    finally:
        spinner.pause()


class Spinner:
    """Shows what is being done as the last line of a terminal, until it is paused; elsewhere nothing.

    Pause it before anything else is printed. `enabled` False shows nothing at all.
    """

    def __init__(self, *, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._enabled = enabled and self._stream.isatty()
        self._doing = "Working"
        self._shown: Progress | None = None

    @property
    def enabled(self) -> bool:
        """True if it can be seen."""
        return self._enabled

    def show(self, doing: str | None = None) -> None:
        """Show the line, with what is being done now, or else what was before."""
        if doing is not None:
            self._doing = one_line(doing, 60)
        if not self._enabled:
            return
        if self._shown is None:
            self._shown = self._make()
            self._shown.start()
        elif doing is not None:
            self._shown.update(self._shown.task_ids[0], description=self._doing)

    def pause(self) -> None:
        """Remove the line, so that something else can be printed."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _make(self) -> "Progress":
        from rich.console import Console  # noqa: PLC0415 - not needed without a terminal
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - likewise

        console = Console(file=self._stream, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        shown = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
        shown.add_task(self._doing, total=None)
        return shown
