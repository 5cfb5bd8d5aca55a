"""Copying, moving and deleting files with the built-in filesystem server, and reading all of a folder."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from agent_runtime.builtin.entries import TEMPORARY
from agent_runtime.builtin.filesystem import create_server
from agent_runtime.builtin.serving import make_mcp_server
from agent_runtime.builtin.toolbox import Toolbox

Ask = Callable[..., Awaitable[Any]]
TWO_PATHS = ["copy_file", "move_file"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "sample_data"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    (folder / "b.txt").write_text("two\n")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def server(root: Path) -> Toolbox:
    return create_server(root, kept=[root / "kept"])


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder, at any depth, other than the file that a test moves."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in found if not name.endswith("a.txt"))


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


async def test_a_file_is_copied_with_its_rights_into_a_new_folder(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "a.txt").chmod(0o640)
    answer = await ask(server, "copy_file", source="a.txt", destination="old/a.txt")
    assert answer.text == "Copied a.txt to old/a.txt."
    assert answer.output == {"source": "a.txt", "path": "old/a.txt", "size": 4}
    assert contents(root) == {"a.txt": "one\n", "b.txt": "two\n", "old/a.txt": "one\n"}
    assert stat.S_IMODE((root / "old/a.txt").stat().st_mode) == 0o640


async def test_a_file_is_moved(server: Toolbox, root: Path, ask: Ask) -> None:
    answer = await ask(server, "move_file", source="a.txt", destination="c.txt")
    assert (answer.text, answer.output) == ("Moved a.txt to c.txt.", {"source": "a.txt", "path": "c.txt"})
    assert contents(root) == {"b.txt": "two\n", "c.txt": "one\n"}


async def test_a_file_is_deleted(server: Toolbox, root: Path, ask: Ask) -> None:
    answer = await ask(server, "delete_file", path="a.txt")
    assert (answer.text, answer.output) == ("Deleted a.txt (4 bytes).", {"path": "a.txt", "size": 4})
    assert contents(root) == {"b.txt": "two\n"}


@pytest.mark.parametrize("tool", TWO_PATHS)
@pytest.mark.parametrize("destination", ["b.txt", "a.txt"])
async def test_no_file_is_ever_replaced(tool: str, destination: str, server: Toolbox, root: Path, ask: Ask) -> None:
    before = contents(root)
    answer = await ask(server, tool, source="a.txt", destination=destination)
    assert answer.text == (
        f"{destination} exists already and is not replaced: choose another name, or delete it first."
    )
    assert answer.is_error
    assert contents(root) == before


@pytest.mark.parametrize("tool", TWO_PATHS)
async def test_of_many_at_once_only_one_gets_the_name(tool: str, server: Toolbox, root: Path) -> None:
    for number in range(12):
        (root / f"{number}.txt").write_text(str(number))
    async with Client(make_mcp_server(server)) as client, asyncio.TaskGroup() as group:
        calls = [
            group.create_task(client.call_tool(tool, {"source": f"{number}.txt", "destination": "new/x.txt"}))
            for number in range(12)
        ]
    won = [number for number, call in enumerate(calls) if not call.result().is_error]
    assert len(won) == 1
    assert (root / "new" / "x.txt").read_text() == str(won[0])
    lost = {f"{number}.txt" for number in range(12) if number not in won}
    assert lost <= contents(root).keys()


async def test_moving_between_two_folders_in_both_directions_never_hangs(server: Toolbox, root: Path) -> None:
    for folder, other in (("left", "right"), ("right", "left")):
        (root / folder).mkdir()
        for number in range(8):
            (root / folder / f"to-{other}-{number}.txt").write_text("x")
    async with asyncio.timeout(30), Client(make_mcp_server(server)) as client, asyncio.TaskGroup() as group:
        calls = [
            group.create_task(
                client.call_tool(
                    "move_file",
                    {"source": f"{a}/to-{b}-{number}.txt", "destination": f"{b}/to-{b}-{number}.txt"},
                )
            )
            for number in range(8)
            for a, b in (("left", "right"), ("right", "left"))
        ]
    assert not any(call.result().is_error for call in calls)
    assert len(list((root / "left").iterdir())) == len(list((root / "right").iterdir())) == 8


@pytest.mark.parametrize("outside", ["../secret.txt", "/etc/hostname", "link.txt", "out/secret.txt"])
async def test_nothing_outside_is_copied_moved_or_deleted(outside: str, server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "out").symlink_to(root.parent)
    before = names_in(root.parent)
    for tool, arguments in (
        ("copy_file", {"source": outside, "destination": "x.txt"}),
        ("move_file", {"source": outside, "destination": "x.txt"}),
        ("copy_file", {"source": "a.txt", "destination": outside.replace("secret", "new")}),
        ("move_file", {"source": "a.txt", "destination": outside.replace("secret", "new")}),
        ("delete_file", {"path": outside}),
        ("read_files", {"path": outside}),
    ):
        answer = await ask(server, tool, **arguments)
        assert answer.is_error
        assert "is outside the folder 'sample_data'" in answer.text
    assert names_in(root.parent) == before
    assert (root.parent / "secret.txt").read_text() == "secret"


@pytest.mark.parametrize("tool", ["move_file", "delete_file"])
async def test_a_link_is_neither_moved_nor_deleted_nor_followed(
    tool: str, server: Toolbox, root: Path, ask: Ask
) -> None:
    (root / "inner.txt").symlink_to("a.txt")
    arguments = {"path": "inner.txt"} if tool == "delete_file" else {"source": "inner.txt", "destination": "x.txt"}
    answer = await ask(server, tool, **arguments)
    assert answer.is_error
    assert "is a link, which is neither moved nor deleted here: name the file itself." in answer.text
    assert (root / "inner.txt").is_symlink()
    assert (root / "a.txt").read_text() == "one\n"


@pytest.mark.parametrize("path", ["docs", "missing.txt", "pipe", "readonly.txt", "kept", "kept/x.txt", "."])
async def test_only_an_ordinary_file_that_may_be_changed_is_moved_or_deleted(
    path: str, server: Toolbox, root: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("docs", "kept"):
        (root / folder).mkdir()
        (root / folder / "x.txt").write_text("x")
    os.mkfifo(root / "pipe")
    (root / "readonly.txt").write_text("x")
    monkeypatch.setattr(os, "access", lambda name, *_, **__: name != "readonly.txt")  # root may write anything
    before = names_in(root)
    assert (await ask(server, "delete_file", path=path)).is_error
    assert (await ask(server, "move_file", source=path, destination="new.txt")).is_error
    assert (await ask(server, "move_file", source="a.txt", destination=path)).is_error is (path != "missing.txt")
    assert names_in(root) == (sorted([*before, path]) if path == "missing.txt" else before)


@pytest.mark.parametrize("tool", TWO_PATHS)
async def test_names_of_files_being_written_are_refused(tool: str, server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, tool, source="a.txt", destination=f"{TEMPORARY}x")
    assert "are kept for files that are being written" in answer.text


async def test_a_missing_file_is_refused_with_a_similar_name(server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, "delete_file", path="a.tx")
    assert answer.text == "There is no file a.tx; did you mean a.txt or b.txt?"


async def test_all_text_files_of_a_folder_are_read_together(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "c.txt").write_text("three")
    (root / "photo.png").write_bytes(b"\x89PNG\0")
    (root / "docs").mkdir()
    answer = await ask(server, "read_files")
    assert answer.text == "== a.txt\none\n== b.txt\ntwo\n== c.txt\nthree\n"
    assert answer.output == {"text": "one\ntwo\nthree\n", "files": ["a.txt", "b.txt", "c.txt"], "truncated": False}


async def test_what_is_too_large_to_be_read_together_is_left_out_and_said(
    server: Toolbox, root: Path, ask: Ask
) -> None:
    (root / "b.txt").write_text("x" * (512 * 1024))
    answer = await ask(server, "read_files")
    assert answer.output == {"text": "one\n", "files": ["a.txt"], "truncated": True}
    assert answer.text.endswith("... and more: some files are no text, or too large to be read together.\n")


async def test_a_folder_without_text_says_so(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "docs").mkdir()
    assert (await ask(server, "read_files", path="docs")).text == "The folder docs has no text files.\n"


async def test_a_listing_names_the_longest_text_that_can_be_read(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "big.txt").write_text("x" * (1024 * 1024 + 1))
    (root / "long.md").write_text("longer than the others")
    (root / "docs").mkdir()
    assert (await ask(server, "list_directory")).output["longest_text"] == "long.md"
    assert (await ask(server, "list_directory", path="docs")).output["longest_text"] is None
