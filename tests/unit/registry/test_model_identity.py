"""The identity of the model in plans: its endpoint without secrets, and its name, which the endpoint may say."""

import pytest

from agent_runtime.config import OpenAISettings
from agent_runtime.domain.contract import PinnedModel
from agent_runtime.domain.errors import ModelError
from agent_runtime.registry.current import CurrentRegistry
from agent_runtime.registry.model_identity import ModelIdentity
from agent_runtime.registry.resolved import ShownValues

LOCAL = OpenAISettings(base_url="http://localhost:1/v1")
SHOWN = ShownValues(b"key")


class Endpoint:
    """An endpoint with one model at a time; None: it is down. Counts how often it is asked."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.asked = 0

    async def identify(self) -> str:
        self.asked += 1
        if self.name is None:
            raise ModelError("it is down", code="model_unreachable")
        return self.name


def pin(name: str) -> PinnedModel:
    return PinnedModel(entry="openai", endpoints=("http://localhost:1/v1",), model=name)


async def test_the_model_is_told_by_its_endpoint_and_its_name() -> None:
    endpoint = Endpoint("other")
    settings = OpenAISettings(base_url="http://me:secret@localhost:1/v1?k=secret", model="m")
    identity = ModelIdentity(settings, SHOWN, endpoint.identify)
    await identity.refresh()
    assert identity.pinned
    assert (identity.pinned.entry, identity.pinned.model) == ("openai", "m")
    assert identity.pinned.endpoints[0].startswith("http://[redacted]@localhost:1/v1?[redacted] (hidden:")
    assert endpoint.asked == 0


async def test_without_a_model_there_is_no_identity() -> None:
    endpoint = Endpoint("m")
    identity = ModelIdentity(OpenAISettings(), SHOWN, endpoint.identify)
    await identity.refresh()
    assert (identity.pinned, identity.problem, endpoint.asked) == (None, None, 0)
    registry = CurrentRegistry()
    await registry.identify_model()
    assert (registry.identities.model, registry.identities.no_model, registry.asks_for_model) == (None, None, False)


async def test_where_the_settings_name_no_model_the_endpoint_does_and_what_it_said_stays_until_it_says_another() -> (
    None
):
    endpoint = Endpoint()
    registry = CurrentRegistry((), ModelIdentity(LOCAL, SHOWN, endpoint.identify))
    assert registry.asks_for_model
    seen = []
    for name in (None, "one", None, "two"):
        endpoint.name = name
        await registry.identify_model()
        seen.append((registry.identities.model, registry.identities.no_model))
    assert seen == [(None, "it is down"), (pin("one"), None), (pin("one"), None), (pin("two"), None)]
    registry.replace(())
    assert registry.identities.model == pin("two")


@pytest.mark.parametrize("name", [None, "one"])
async def test_the_identities_are_the_same_object_until_the_model_changes(name: str | None) -> None:
    registry = CurrentRegistry((), ModelIdentity(LOCAL, SHOWN, Endpoint(name).identify))
    await registry.identify_model()
    before = registry.identities
    await registry.identify_model()
    assert registry.identities is before
