import asyncio
import os
import resource
import socket
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client

from agent_runtime.builtin import filesystem, search
from agent_runtime.builtin.entries import TEMPORARY
from agent_runtime.builtin.filesystem import MAX_ENTRIES, create_server
from agent_runtime.builtin.search import Pattern
from agent_runtime.builtin.serving import make_mcp_server
from agent_runtime.builtin.toolbox import Toolbox

Ask = Callable[..., Awaitable[Any]]


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "sample_data"
    folder.mkdir()
    (folder / "notes.txt").write_text("first\nsecond\n", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return folder


@pytest.fixture
def server(root: Path) -> Toolbox:
    return create_server(root)


async def test_a_file_is_read_exactly(server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, "read_file", path="notes.txt")
    assert answer.text == "first\nsecond\n"
    assert answer.output == {"path": "notes.txt", "size": 13, "lines": 2}


@pytest.mark.parametrize(
    "path",
    [
        "sample_data/notes.txt",
        "./notes.txt",
        "./sample_data/notes.txt",
        "a/../notes.txt",
        "src/agent_runtime/sample_data/notes.txt",
    ],
)
async def test_a_file_may_be_named_in_several_ways(path: str, server: Toolbox, ask: Ask) -> None:
    assert (await ask(server, "read_file", path=path)).output["path"] == "notes.txt"


async def test_an_absolute_path_inside_the_root_is_fine(server: Toolbox, root: Path, ask: Ask) -> None:
    assert (await ask(server, "read_file", path=str(root / "notes.txt"))).output["path"] == "notes.txt"


async def test_a_folder_src_of_the_root_comes_before_the_path_of_the_first_runtime(
    server: Toolbox, root: Path, ask: Ask
) -> None:
    (root / "src").mkdir()
    answer = await ask(server, "write_file", path="src/agent_runtime/sample_data/x.txt", content="x")
    assert answer.output["path"] == "src/agent_runtime/sample_data/x.txt"


async def test_a_subfolder_of_the_roots_own_name_comes_first(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "sample_data").mkdir()
    answer = await ask(server, "write_file", path="sample_data/x.txt", content="x")
    assert answer.output["path"] == "sample_data/x.txt"
    assert (root / "sample_data" / "x.txt").exists()


@pytest.mark.parametrize(
    "path", ["../secret.txt", "/etc/passwd", "..", "sample_data/../../secret.txt", "link.txt", "out/x"]
)
@pytest.mark.parametrize("tool", ["read_file", "write_file", "append_file", "file_info", "list_directory"])
async def test_no_path_leads_outside(path: str, tool: str, server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "out").symlink_to(root.parent)
    content = {"content": "changed"} if tool in {"write_file", "append_file"} else {}
    answer = await ask(server, tool, path=path, **content)
    assert answer.is_error
    assert "is outside the folder 'sample_data'" in answer.text
    assert str(root) not in answer.text.replace(path, "")
    assert (root.parent / "secret.txt").read_text(encoding="utf-8") == "secret"


async def test_a_link_inside_the_root_is_followed_and_kept(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "link.txt").symlink_to("notes.txt")
    await ask(server, "write_file", path="link.txt", content="new")
    assert (root / "link.txt").is_symlink()
    assert (root / "notes.txt").read_text(encoding="utf-8") == "new"


async def test_a_link_in_a_circle_is_refused(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "loop").symlink_to("loop")
    assert (await ask(server, "read_file", path="loop")).is_error


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
async def test_a_path_that_names_nothing_is_refused(path: str, server: Toolbox, ask: Ask) -> None:
    assert (await ask(server, "write_file", path=path, content="")).is_error


async def test_a_name_that_is_too_long_is_refused(server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, "write_file", path="x" * 300, content="")
    assert answer.is_error
    assert "File name too long" in answer.text


async def test_a_missing_file_names_what_was_perhaps_meant(server: Toolbox, ask: Ask) -> None:
    answer = await ask(server, "read_file", path="Notes.tx")
    assert answer.is_error
    assert answer.text == "There is no file Notes.tx; did you mean notes.txt?"


async def test_binary_files_and_large_ones_are_not_read(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "image.png").write_bytes(b"\x89PNG\0\xff")
    (root / "large.txt").write_bytes(b"x" * (1024 * 1024 + 1))
    assert "is not UTF-8 text" in (await ask(server, "read_file", path="image.png")).text
    assert "larger than the limit" in (await ask(server, "read_file", path="large.txt")).text


@pytest.mark.parametrize("tool", ["read_file", "write_file", "append_file"])
async def test_what_is_no_ordinary_file_is_refused_without_waiting(
    tool: str, server: Toolbox, root: Path, ask: Ask
) -> None:
    os.mkfifo(root / "pipe")
    content = {} if tool == "read_file" else {"content": "x"}
    async with asyncio.timeout(5):
        assert "not an ordinary file" in (await ask(server, tool, path="pipe", **content)).text
        assert (await ask(server, tool, path=".", **content)).is_error


async def test_a_write_makes_missing_folders_and_says_what_it_did(server: Toolbox, root: Path, ask: Ask) -> None:
    answer = await ask(server, "write_file", path="a/b/c.txt", content="hällo")
    assert answer.text == "Wrote 6 bytes to a/b/c.txt."
    assert answer.output == {"path": "a/b/c.txt", "size": 6, "created": True}
    assert (root / "a" / "b" / "c.txt").read_text(encoding="utf-8") == "hällo"
    assert (await ask(server, "write_file", path="a/b/c.txt", content="x")).output["created"] is False


async def test_a_write_keeps_the_permissions_and_leaves_no_other_file(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "notes.txt").chmod(0o640)
    await ask(server, "write_file", path="notes.txt", content="x")
    assert (root / "notes.txt").stat().st_mode & 0o777 == 0o640
    assert names_in(root) == ["notes.txt"]


@pytest.mark.parametrize("tool", ["write_file", "append_file"])
async def test_a_write_clears_the_bits_that_would_run_a_file_as_somebody_else(
    tool: str, server: Toolbox, root: Path, ask: Ask
) -> None:
    (root / "notes.txt").chmod(0o7755)
    await ask(server, tool, path="notes.txt", content="x")
    assert stat.S_IMODE((root / "notes.txt").stat().st_mode) == 0o755


async def test_a_failed_write_leaves_the_old_content(server: Toolbox, root: Path, ask: Ask) -> None:
    assert (await ask(server, "write_file", path="notes.txt/x", content="y")).is_error
    assert (await ask(server, "write_file", path="notes.txt", content="ä" * 1024 * 1024)).is_error
    assert (root / "notes.txt").read_text(encoding="utf-8") == "first\nsecond\n"
    assert names_in(root) == ["notes.txt"]


async def test_a_full_disk_leaves_the_old_content(server: Toolbox, root: Path, ask: Ask) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the system refuses the write half-way, as when full
    try:
        answer = await ask(server, "write_file", path="notes.txt", content="x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert answer.is_error
    assert answer.text == "notes.txt could not be used: File too large."
    assert (root / "notes.txt").read_text(encoding="utf-8") == "first\nsecond\n"
    assert names_in(root) == ["notes.txt"]


async def test_a_file_does_not_grow_without_bound(server: Toolbox, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MAX_FILE", 15)
    answer = await ask(server, "append_file", path="notes.txt", content="third")
    assert answer.is_error
    assert "would grow over 15 bytes" in answer.text


async def test_appending_starts_on_a_new_line(server: Toolbox, root: Path, ask: Ask) -> None:
    answer = await ask(server, "append_file", path="log.txt", content="one")
    assert answer.text == "Appended 3 bytes to log.txt."
    assert answer.output == {"path": "log.txt", "size": 3, "created": True}
    assert (await ask(server, "append_file", path="log.txt", content="two\n")).output["size"] == 8
    await ask(server, "append_file", path="log.txt", content="three")
    assert (root / "log.txt").read_text(encoding="utf-8") == "one\ntwo\nthree"


async def test_concurrent_appends_and_writers_lose_nothing(root: Path) -> None:
    """Two servers, as two processes would be, with many calls at once."""
    async with (
        asyncio.timeout(30),
        Client(make_mcp_server(create_server(root))) as one,
        Client(make_mcp_server(create_server(root))) as other,
        asyncio.TaskGroup() as group,
    ):
        for number in range(40):
            client = one if number % 2 else other
            group.create_task(client.call_tool("append_file", {"path": "log.txt", "content": f"line {number}"}))
            group.create_task(client.call_tool("write_file", {"path": f"{number}.txt", "content": "x"}))
    lines = (root / "log.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(lines) == sorted(f"line {number}" for number in range(40))
    assert len(names_in(root)) == 42


@pytest.mark.parametrize("tool", ["write_file", "append_file"])
async def test_what_a_killed_writer_left_behind_is_gone_after_the_next_write_in_that_folder(
    tool: str, server: Toolbox, root: Path, ask: Ask
) -> None:
    left, young, other = (root / (TEMPORARY + part) for part in ("0" * 16, "1" * 16, "not-ours"))
    for each in (left, young, other):
        each.write_text("x", encoding="utf-8")
    folder = root / (TEMPORARY + "2" * 16)
    folder.mkdir()
    for each in (left, other, folder):
        os.utime(each, (time.time() - 3700, time.time() - 3700))
    await ask(server, tool, path="a.txt", content="x")
    assert [each.exists() for each in (left, young, other, folder)] == [False, True, True, True]


async def test_a_name_that_is_kept_for_files_being_written_is_refused(server: Toolbox, root: Path, ask: Ask) -> None:
    answer = await ask(server, "write_file", path=TEMPORARY + "0" * 16, content="x")
    assert answer.is_error
    assert "another name" in answer.text
    assert names_in(root) == ["notes.txt"]


async def test_a_listing_shows_names_types_sizes_and_text_files(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "sub").mkdir()
    (root / "README").write_text("plain", encoding="utf-8")
    (root / "data.bin").write_bytes(b"\0\1")
    (root / ".hidden").write_text("x", encoding="utf-8")
    (root / "outside").symlink_to(root.parent / "secret.txt")
    (root / (TEMPORARY + "1")).write_text("x", encoding="utf-8")
    answer = await ask(server, "list_directory")
    assert answer.text == ".hidden\nREADME\ndata.bin\nnotes.txt\noutside\nsub/"
    assert answer.output["text_files"] == ["README", "notes.txt"]
    assert answer.output["entries"] == [
        {"name": ".hidden", "type": "file", "size": 1},
        {"name": "README", "type": "file", "size": 5},
        {"name": "data.bin", "type": "file", "size": 2},
        {"name": "notes.txt", "type": "file", "size": 13},
        {"name": "outside", "type": "other", "size": 0},
        {"name": "sub", "type": "directory", "size": 0},
    ]
    assert (await ask(server, "list_directory", path="sub")).text == "The folder sub is empty."


async def test_text_files_are_named_from_the_root(server: Toolbox, ask: Ask) -> None:
    await ask(server, "write_file", path="sub/a.md", content="a")
    assert (await ask(server, "list_directory", path="sub")).output["text_files"] == ["sub/a.md"]


async def test_a_listing_is_bounded_and_says_so(server: Toolbox, root: Path, ask: Ask) -> None:
    for number in range(MAX_ENTRIES + 1):
        (root / f"{number:05}.txt").touch()
    answer = await ask(server, "list_directory")
    assert len(answer.output["entries"]) == MAX_ENTRIES
    assert answer.output["truncated"] is True


async def test_a_name_that_is_not_utf8_does_no_harm(server: Toolbox, root: Path, ask: Ask) -> None:
    root.joinpath(os.fsdecode(b"bad\xff")).touch()
    assert "bad\ufffd" in (await ask(server, "list_directory")).text


async def test_making_a_folder_twice_is_fine_and_said(server: Toolbox, root: Path, ask: Ask) -> None:
    assert (await ask(server, "create_directory", path="a/b")).text == "Created folder a/b."
    again = await ask(server, "create_directory", path="a/b")
    assert again.text == "The folder a/b exists already."
    assert again.output == {"path": "a/b", "created": False}
    assert (await ask(server, "create_directory", path="notes.txt")).is_error
    assert (root / "a" / "b").is_dir()


async def test_a_search_finds_by_name_and_content(server: Toolbox, ask: Ask) -> None:
    await ask(server, "write_file", path="reports/2026/Budget.csv", content="total,12")
    await ask(server, "write_file", path="budget.txt", content="nothing")
    await ask(server, "write_file", path=".git/budget.txt", content="hidden")
    found = await ask(server, "search_files", pattern="BUDGET")
    assert found.output == {"matches": ["budget.txt", "reports/2026/Budget.csv"], "count": 2, "truncated": False}
    assert found.text == "budget.txt\nreports/2026/Budget.csv"
    assert (await ask(server, "search_files", pattern="*", content="TOTAL")).text == "reports/2026/Budget.csv"
    assert (await ask(server, "search_files", pattern="*.csv", path="reports")).output["count"] == 1
    nothing = await ask(server, "search_files", pattern="*.pdf")
    assert nothing.text == "No file matches *.pdf."
    assert nothing.output["matches"] == []
    assert (await ask(server, "search_files", pattern="x", path="absent")).is_error


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.txt", "a/b/c.txt", True),
        ("a/*.txt", "a/b/c.txt", False),
        ("a/**/*.txt", "a/b/c.txt", True),
        ("a/**/*.txt", "a/c.txt", True),
        ("**/b/**", "a/b/c.txt", True),
        ("a/**/x/*.txt", "a/b/c.txt", False),
        ("c.t", "a/b/c.txt", True),
        ("b/c", "a/b/c.txt", True),
        ("[ab].txt", "b.txt", True),
        ("(", "b(.txt", True),
    ],
)
def test_patterns_are_globs_or_parts_of_names(pattern: str, path: str, matches: bool) -> None:  # noqa: FBT001 - a table
    assert Pattern(pattern).matches(path.split("/")) is matches


def test_a_hostile_pattern_is_judged_at_once() -> None:
    assert not Pattern("**/" * 80 + "z").matches(["a"] * 100)
    assert not Pattern("*a" * 120 + "b").matches(["a" * 250])


@pytest.mark.parametrize(
    ("bound", "value"), [("MAX_MATCHES", 2), ("MAX_BYTES", 2), ("MAX_VISITED", 3), ("_MAX_DEPTH", 0)]
)
async def test_a_search_is_bounded_and_says_so(
    bound: str, value: int, server: Toolbox, root: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "sub").mkdir()
    for name in "abcde":
        (root / f"{name}.md").write_text("x", encoding="utf-8")
    monkeypatch.setattr(search, bound, value)
    answer = await ask(server, "search_files", pattern="*.md", content="X")
    assert answer.output["truncated"] is True
    assert answer.text.endswith("Search a smaller folder, or more precisely.")
    assert bound == "_MAX_DEPTH" or answer.output["count"] <= value


async def test_a_search_passes_over_binary_and_large_files(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "binary").write_bytes(b"\0first")
    (root / "large").write_bytes(b"first" * 300_000)
    assert (await ask(server, "search_files", pattern="*", content="first")).output["matches"] == ["notes.txt"]


async def test_a_search_does_not_follow_links(server: Toolbox, root: Path, ask: Ask) -> None:
    (root / "out").symlink_to(root.parent)
    (root / "loop").symlink_to(".")
    assert (await ask(server, "search_files", pattern="secret")).output["matches"] == []


async def test_info_says_what_a_path_is(server: Toolbox, root: Path, ask: Ask) -> None:
    os.utime(root / "notes.txt", (1_700_000_000, 1_700_000_000))
    answer = await ask(server, "file_info", path="notes.txt")
    assert answer.text == "notes.txt: file, 13 bytes, modified 2023-11-14T22:13:20Z"
    assert answer.output == {"path": "notes.txt", "type": "file", "size": 13, "modified": "2023-11-14T22:13:20Z"}
    assert (await ask(server, "file_info", path=".")).output["type"] == "directory"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s"))
        assert (await ask(server, "file_info", path="s")).output["type"] == "other"


async def test_a_missing_root_is_said_by_every_call(tmp_path: Path, ask: Ask) -> None:
    answer = await ask(create_server(tmp_path / "gone"), "list_directory")
    assert answer.is_error
    assert "The root folder 'gone' cannot be opened" in answer.text


async def test_a_file_that_may_not_be_written_is_left_alone(server: Toolbox, root: Path, ask: Ask) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    (root / "notes.txt").chmod(0o444)
    assert "read-only" in (await ask(server, "write_file", path="notes.txt", content="x")).text
