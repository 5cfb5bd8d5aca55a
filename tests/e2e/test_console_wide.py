"""The page on a very wide screen: lines stay short enough to read, no text is tiny, and none covers another."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, WIDE, Browser
from console import STATUS, open_task, open_view, overflows, serve
from harness import House
from serving import Service
from shifty import ShiftyHouse, plan_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="NOT TESTED: this machine has no Chromium"),
]

SERVERS = Path(__file__).parents[1] / "servers"
LONG = "A sentence that goes on and on about nothing much at all. " * 40
TEXTS = """(() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest(".hidden, script, style, option, .picture")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const boxes = [];
    for (let box = parent; box; box = box.parentElement) {
      if (getComputedStyle(box).overflowY !== "visible") boxes.push(box.getBoundingClientRect());
    }
    const lines = [...range.getClientRects()]
      .map((line) => ({
        left: Math.max(line.left, ...boxes.map((box) => box.left)),
        right: Math.min(line.right, ...boxes.map((box) => box.right)),
        top: Math.max(line.top, ...boxes.map((box) => box.top)),
        bottom: Math.min(line.bottom, ...boxes.map((box) => box.bottom)),
      }))
      .filter(({ left, right, top, bottom }) => left < right && top < bottom);
    const size = parseFloat(getComputedStyle(parent).fontSize);
    if (lines.length && parent.checkVisibility()) found.push({ text: node.data.slice(0, 60), size, lines });
  }
  return found;
})()"""

CUT_NODES = """[...document.querySelectorAll(".node-text")].filter(
  (text) => text.getBoundingClientRect().bottom > text.closest("g").querySelector("rect").getBoundingClientRect().bottom
).length"""
"""The number of texts in the picture of the plan that do not fit into their box."""

CROWDED_SENTENCES = """[...document.querySelectorAll(".step-body")].filter((step) => {
  const [sentence, buttons] = [".sentence", ".step-buttons"].map((name) => step.querySelector(name));
  const room = sentence.getBoundingClientRect().right - parseFloat(getComputedStyle(sentence).paddingRight);
  return buttons && room > buttons.getBoundingClientRect().left;
}).length"""
"""The number of sentences of steps that may reach under the buttons beside them."""


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[Browser]:
    with closing(Browser(tmp_path / "browser", size=WIDE)) as browser:
        yield browser
        assert browser.mistakes == []


def judge(browser: Browser) -> None:
    """Check that the texts on the screen can be read."""
    assert overflows(browser) == "[]"
    texts: list[dict[str, Any]] = browser.value_of(TEXTS)
    assert texts
    assert [one["text"] for one in texts if one["size"] < 16] == []
    lengths = [(one["text"], (line["right"] - line["left"]) / one["size"]) for one in texts for line in one["lines"]]
    assert [text for text, length in lengths if length > 80] == []
    for one, other in itertools.combinations(texts, 2):
        assert not any(cover(*lines) for lines in itertools.product(one["lines"], other["lines"])), (one, other)
    assert browser.value_of(CUT_NODES) == 0
    assert browser.value_of(CROWDED_SENTENCES) == 0


def cover(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether two lines of text share more than the space between lines."""
    width = min(one["right"], other["right"]) - max(one["left"], other["left"])
    height = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return width > 2 and height > 6


def test_every_view_can_be_read(tmp_path: Path, wide: Browser) -> None:
    with Service(tmp_path) as service:
        service.complete_task(prompt=LONG)
        for address in ("", "new", "servers", "models", "access", "?q=nothing", "tasks/task_none"):
            open_view(wide, service, address)
            wide.until(
                "document.querySelector('main').innerText.length > 0 && !document.body.innerText.includes('Loading')"
            )
            judge(wide)
        wide.open(f"{service.url}/docs")
        wide.until("document.body.innerText.includes('POST /v1/tasks')")
        judge(wide)


def test_a_plan_a_call_and_a_question_can_be_read(tmp_path: Path, wide: Browser) -> None:
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    House(tmp_path).write_registry(config=config, tools={"*": {"effect": "read"}})
    ask = {"id": "ask", "kind": "tool", "server": "ledger", "tool": "form"}
    arguments = {"path": "said.txt", "content": f"{LONG} ${{ask.text}}"}
    save = {"id": "save", "kind": "tool", "server": "filesystem", "tool": "write_file", "arguments": arguments}
    with serve(tmp_path) as service:
        task_id = service.submit(plan={"goal": LONG, "steps": [ask, save]}, prompt=LONG)
        open_task(wide, service, task_id)
        wide.until_shown("Should this plan run?")
        wide.until("document.querySelectorAll('.node').length === 2")
        judge(wide)
        wide.press("Exact call of step 2")
        wide.until("document.querySelector('.value-text') !== null")
        judge(wide)
        wide.press("Approve")
        wide.until_shown("The server ledger asks you")
        judge(wide)
        wide.press("Decline")
        wide.until_shown("May step save make this call?")
        wide.press("Edit the arguments")
        wide.until_shown("Nothing is changed yet.")
        judge(wide)
        wide.press("Discard changes")
        wide.press("Deny")
        wide.until(f"{STATUS} === 'failed'")
        judge(wide)


def test_an_unknown_outcome_can_be_read(tmp_path: Path, wide: Browser) -> None:
    house = ShiftyHouse(tmp_path)
    house.write_entry(tools={"die": {"idempotent": False}, "*": {"open_world": False}})
    with serve(tmp_path) as service:
        task_id = service.submit(plan=plan_of("die:one").model_dump(mode="json"))
        service.approve(task_id)
        open_task(wide, service, task_id)
        wide.until_shown("Did this call of step s1 take effect?")
        judge(wide)
