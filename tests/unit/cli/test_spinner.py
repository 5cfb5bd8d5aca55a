"""The spinner shows at a terminal that work goes on, and leaves nothing behind."""

import io

import pytest

from agent_runtime.cli.spinner import Spinner


class Screen(io.StringIO):
    """A text stream that says whether it is a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_what_is_being_done_is_shown_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(terminal=True)
    spinner = Spinner(stream=screen)
    spinner.show("Planning\nmuch [bold]\x1b[31m")
    spinner.show()
    spinner.pause()
    spinner.pause()
    text = screen.getvalue()
    assert "Planning much [bold]" in text
    assert "\x1b[31m" not in text
    assert text.endswith("\x1b[2K")  # the line is erased


@pytest.mark.parametrize(("terminal", "enabled"), [(False, True), (True, False)])
def test_nothing_is_shown_in_a_pipe_or_with_json(terminal: bool, enabled: bool) -> None:  # noqa: FBT001 - a parameter of the test
    screen = Screen(terminal=terminal)
    spinner = Spinner(enabled=enabled, stream=screen)
    spinner.show("Planning")
    spinner.pause()
    assert screen.getvalue() == ""
