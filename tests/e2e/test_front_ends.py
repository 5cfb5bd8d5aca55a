"""Every real client goes every way: a table of the clients of `front_ends.py` and the journeys of `journeys.py`."""

from collections.abc import Iterator
from typing import cast

import pytest

from front_ends import CHATS, FRONT_ENDS, Chat
from journeys import BEGINNING, JOURNEYS, STORY, Stage, ask, set_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module", params=FRONT_ENDS)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with set_up(tmp_path_factory.mktemp("stage"), FRONT_ENDS[request.param]) as stage:
        yield stage


@pytest.mark.parametrize("journey", JOURNEYS)
def test_a_client_goes_every_way(stage: Stage, journey: str) -> None:
    JOURNEYS[journey](stage)


@pytest.mark.parametrize("stage", CHATS, indirect=True, scope="module")
def test_a_client_shows_what_a_model_writes_while_it_writes_and_the_whole_of_it_once(stage: Stage) -> None:
    chat = cast("Chat", stage.front)
    stage.models.hold()
    ask(stage, "Please tell")
    chat.answer_and_leave("approve", BEGINNING)
    assert stage.task["status"] == "executing"
    stage.models.release()
    shown = chat.come_back()
    assert (shown.status, shown.texts) == ("completed", (STORY,))
