"""What callers program against, by its name, is in the documentation."""

import re
from pathlib import Path

import pytest

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.call_rules import CallRefusedError
from agent_runtime.domain.errors import ModelError
from agent_runtime.domain.events import EVENTS

DOCS = Path(__file__).parents[2] / "docs"


def codes_in(thing: type) -> list[str]:
    """The names in backquotes that a docstring lists."""
    return re.findall(r"`([a-z]+(?:_[a-z]+)*)`", thing.__doc__ or "")


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_in_the_contract(name: str) -> None:
    assert name in (DOCS / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("rule", [name for name in codes_in(CallRefusedError) if name != "rule"])
def test_every_rule_is_in_the_contract(rule: str) -> None:
    assert f"`{rule}`" in (DOCS / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", [name for name in codes_in(ModelError) if name.startswith("model_")])
def test_every_failure_of_a_model_has_its_remedy(code: str) -> None:
    assert f"| `{code}` |" in (DOCS / "models.md").read_text(encoding="utf-8")
    assert code in (DOCS / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", OpenAISettings.model_fields)
def test_every_setting_of_a_model_is_explained(setting: str) -> None:
    assert f"| `{setting}` |" in (DOCS / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(1, 17))
def test_every_guarantee_names_tests_that_exist(number: int) -> None:
    text = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    section = text.partition(f"\n## G{number} ")[2].partition("\n## ")[0]
    assert "* Proved by:" in section
    assert "* Not promised:" in section
    for name in re.findall(r"`((?:contract|e2e|journeys|mutation|unit)/[^`]*)`", section):
        assert (DOCS.parent / "tests" / name).exists(), name
