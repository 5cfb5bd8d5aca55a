"""No path leads outside the root, for reading or for writing."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent_runtime.builtin.refusals import Refusal
from agent_runtime.builtin.root import Root

PARTS = st.sampled_from(
    [
        "..",
        ".",
        "",
        "root",
        "sub",
        "up",
        "out",
        "etc",
        "abs",
        "loop",
        "file",
        "secret",
        "new",
        "inside",
        "\u00e9",
        " ",
        "a\0",
    ]
)
PATHS = st.one_of(
    st.lists(PARTS, max_size=8).map("/".join),
    st.lists(PARTS, max_size=8).map(lambda parts: "/" + "/".join(parts)),
    st.text(alphabet="./~\\ab\0\n ", max_size=20),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root full of links that lead out, beside a file that must not be touched."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_text("secret", encoding="utf-8")
    root = outside / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("inside", encoding="utf-8")
    for name, target in {
        "up": "..",
        "out": str(outside),
        "etc": "/etc",
        "abs": str(outside / "secret"),
        "loop": "loop",
        "inside": "sub",
        "sub/up": "../..",
    }.items():
        (root / name).symlink_to(target)
    before = sorted(outside.iterdir())
    yield root
    assert sorted(outside.iterdir()) == before
    assert (outside / "secret").read_text(encoding="utf-8") == "secret"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(path="loop/../up")
@given(path=PATHS)
def test_no_path_escapes(tree: Path, path: str) -> None:
    root = Root(tree)
    with suppress(Refusal):
        place = root.locate(path)
        assert ".." not in place.parts
        assert Path(os.path.realpath(tree.joinpath(*place.parts))).is_relative_to(tree)
    with suppress(Refusal):
        assert root.read(root.locate(path), 100) != b"secret"
    with suppress(Refusal):
        root.append(root.locate(path), b"more", 10_000)


def test_a_folder_swapped_for_a_link_after_the_check_is_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    place = Root(root).locate("sub/x.txt")
    (root / "sub").rmdir()
    (root / "sub").symlink_to(tmp_path)
    with pytest.raises(Refusal):
        Root(root).write(place, b"x")
    with pytest.raises(Refusal):
        Root(root).append(place, b"x", 100)
    assert not (tmp_path / "x.txt").exists()


def test_a_file_swapped_for_a_link_after_the_check_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    root = tmp_path / "root"
    root.mkdir()
    place = Root(root).locate("x.txt")
    (root / "x.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(Refusal):
        Root(root).read(place, 100)
    with pytest.raises(Refusal):
        Root(root).write(place, b"x")
    assert (tmp_path / "secret").read_text(encoding="utf-8") == "secret"


def test_swapping_links_all_the_time_never_lets_anything_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "x").write_text("inside", encoding="utf-8")
    (tmp_path / "x").write_text("secret", encoding="utf-8")
    (root / "sub").symlink_to("real")
    stop = threading.Event()

    def swap() -> None:
        for number in range(100_000):
            if stop.is_set():
                return
            (root / "next").symlink_to("real" if number % 2 else tmp_path)
            (root / "next").rename(root / "sub")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(500):
            with suppress(Refusal):
                assert Root(root).read(Root(root).locate("sub/x"), 100) == b"inside"
    finally:
        stop.set()
        swapper.join(10)
