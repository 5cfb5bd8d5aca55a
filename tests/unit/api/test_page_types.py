"""The shapes for the type check of the page's scripts match the answers of the service."""

import re
from importlib.resources import files

import pytest

from agent_runtime.api import console, conversations, me, plan_views, service_shapes, shapes
from agent_runtime.domain import contract, images, plan, tools

_TYPES = files(console).joinpath("shapes.d.ts").read_text()
_INTERFACES = re.findall(r"^interface (\w+)[^{]*\{\n(.*?)^\}", _TYPES, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "body"), _INTERFACES, ids=[name for name, _ in _INTERFACES])
def test_the_page_expects_only_fields_that_the_service_sends(name: str, body: str) -> None:
    shape = next(
        getattr(module, name)
        for module in (shapes, service_shapes, me, conversations, plan_views, plan, contract, tools, images)
        if hasattr(module, name)
    )
    sent = getattr(shape, "model_fields", None) or shape.__annotations__
    expected = set(re.findall(r"^  (\w+)\??:", body, re.MULTILINE))
    assert expected
    assert expected <= set(sent)
