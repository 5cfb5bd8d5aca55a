"""The text that a model writes now, at a terminal and elsewhere."""

import io
import os
import pty
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import pytest

from agent_runtime.cli.live_text import LiveText


@contextmanager
def open_terminal() -> Iterator[tuple[TextIO, Callable[[], str]]]:
    """Yield a terminal to write to, and a function that closes it and returns all that it was sent."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    stream = os.fdopen(slave, "w", encoding="utf-8")

    def read_all() -> str:
        stream.close()
        shown = b""
        with suppress(OSError):  # how a terminal says that its other side is closed
            while data := os.read(master, 4096):
                shown += data
        return shown.decode()

    try:
        yield stream, read_all
    finally:
        stream.close()
        os.close(master)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def test_pieces_of_text_are_dim_and_joined_and_a_message_begins_its_own_line() -> None:
    with open_terminal() as (stream, read_all):
        live = LiveText(stream=stream)
        for piece in ('{"goal": ', '"Add"}'):
            live.show(piece)
        live.end_line()
        live.end_line()
        assert read_all() == '\x1b[2m{"goal": \x1b[0m\x1b[2m"Add"}\x1b[0m\n'


def test_a_model_cannot_command_the_terminal() -> None:
    with open_terminal() as (stream, read_all):
        LiveText(stream=stream).show("a\x1b[31mred\r\u202eb [bold]c[/bold]\n")
        shown = read_all()
    assert "a\\x1b[31mred\\r\\u202eb [bold]c[/bold]" in shown
    assert "\x1b[31m" not in shown


def test_nothing_is_shown_of_it_where_nobody_watches_or_where_it_is_not_wanted() -> None:
    pipe = io.StringIO()
    live = LiveText(stream=pipe)
    live.show("text")
    live.end_line()
    assert pipe.getvalue() == ""
    with open_terminal() as (stream, read_all):
        LiveText(enabled=False, stream=stream).show("text")
        assert read_all() == ""


def test_a_terminal_without_colours_gets_the_text_alone_and_unbroken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text = "a long line " * 20
    with open_terminal() as (stream, read_all):
        LiveText(stream=stream).show(text)
        assert read_all() == text
