"""The documentation contains every name that callers use in programs."""

import re
import runpy
from pathlib import Path

import pytest

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.call_rules import CallRefusedError
from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.events import EVENTS
from agent_runtime.domain.plan import Plan

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = DOCS / "reference"
LONGEST_LINE = 160


def codes_in(thing: type) -> list[str]:
    """Return the names in backquotes in a docstring."""
    return re.findall(r"`([a-z]+(?:_[a-z]+)*)`", thing.__doc__ or "")


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_in_the_contract(name: str) -> None:
    assert f"| `{name}` |" in (REFERENCE / "events.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", [name for name in codes_in(CallRefusedError) if name != "rule"])
def test_every_rule_is_in_the_contract(rule: str) -> None:
    assert f"`{rule}`" in (REFERENCE / "rules.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [name for name in codes_in(ModelError) if name.startswith("model_")])
def test_every_failure_of_a_model_has_its_remedy(code: str) -> None:
    assert f"| `{code}` |" in (DOCS / "models.md").read_text(encoding="utf-8")
    assert f"`{code}`" in (REFERENCE / "errors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", OpenAISettings.model_fields)
def test_every_setting_of_a_model_is_explained(setting: str) -> None:
    assert f"| `{setting}` |" in (DOCS / "models.md").read_text(encoding="utf-8")


def test_the_plan_that_is_shown_is_a_plan() -> None:
    text = (REFERENCE / "plan.md").read_text(encoding="utf-8")
    plan = Plan.model_validate_json(text.partition("```json\n")[2].partition("```")[0])
    assert [step.id for step in plan.steps] == ["s1", "s2", "s3"]


def test_every_generated_part_of_a_page_can_be_made() -> None:
    made = runpy.run_path(str(DOCS / "_site" / "generated.py"))["on_page_markdown"]
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")]
    asking = [page for page in pages if "<!-- generated: " in page]
    assert len(asking) >= 5
    for page in asking:
        assert "<!-- generated: " not in made(page)


def test_no_page_has_a_line_that_nobody_reads() -> None:
    pages = [page for folder in ("how-to", "reference", "decisions") for page in (DOCS / folder).glob("*.md")]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    assert lines
    assert not [line for line in lines if len(line) > LONGEST_LINE]


@pytest.mark.parametrize("number", range(1, 17))
def test_every_guarantee_names_tests_that_exist(number: int) -> None:
    text = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## G{number} ")[2].partition("\n## ")[0]
    assert "* Proved by:" in section
    assert "* Not promised:" in section
    for name in re.findall(r"`((?:contract|e2e|journeys|mutation|unit)/[^`]*)`", section):
        assert (DOCS.parent / "tests" / name).exists(), name
