"""Images that tools answer with, from a real server to whoever may see them (G1, G11)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve
from agent_runtime.domain.caller import ANYBODY
from agent_runtime.domain.errors import ImageNotFoundError, StoreUnavailableError, TaskNotFoundError
from agent_runtime.domain.events import Event, ToolReturned
from agent_runtime.domain.images import MOST_IMAGES, Image
from agent_runtime.domain.journal_verification import find_journal_faults
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.domain.tools import StoredResult
from agent_runtime.services.task_manager import RerunSubmission
from agent_runtime.storage.sqlite.store import SqliteStore
from harness import House, submit_plan, until_settled
from model_server import ModelServer
from model_server.replies import Calls, Text, by_turn
from painting import BLUE, RED, add_painter, painting_plan

MISSING = {"id": "last", "kind": "tool", "server": "filesystem", "tool": "read_file", "arguments": {"path": "no.txt"}}


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    add_painter(house)
    return house


async def carry_out(runtime: Runtime, plan: dict[str, Any]) -> Task:
    task = await submit_plan(runtime, Plan.model_validate(plan))
    await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
    return await until_settled(runtime, task.task_id)


async def results_of(runtime: Runtime, task: Task) -> list[StoredResult]:
    """Return the results in the journal of a task, which must hold no bytes of an image."""
    records = await runtime.tasks.records(task.task_id, ANYBODY)
    assert not any('"data"' in record.data for record in records if isinstance(record.event, ToolReturned))
    return [record.event.result for record in records if isinstance(record.event, ToolReturned)]


async def show(runtime: Runtime, task: Task, result: StoredResult) -> list[bytes]:
    """Return the bytes of the images that a result names."""
    return [(await runtime.tasks.load_image(task.task_id, one.digest, ANYBODY)).data for one in result.images]


async def test_an_image_of_a_call_can_be_seen_after_a_restart_until_the_task_is_deleted(house: House) -> None:
    async with house.open() as runtime:
        task = await carry_out(runtime, painting_plan("red", "both"))
        assert task.status is TaskStatus.COMPLETED
    async with house.open() as runtime:
        red, both = await results_of(runtime, task)
        assert await show(runtime, task, red) == [RED]
        assert await show(runtime, task, both) == [RED, BLUE]
        assert red.text == f"Here it is:\n[image, image/png, {len(RED)} bytes, {red.images[0].mark}]"
        stored = await runtime.tasks.load_stored_journal(task.task_id, ANYBODY)
        assert find_journal_faults(stored) == []
        with pytest.raises(ImageNotFoundError, match="has no image 'sha256:0'"):
            await runtime.tasks.load_image(task.task_id, "sha256:0", ANYBODY)
        await runtime.tasks.delete(task.task_id, ANYBODY)
        with pytest.raises(TaskNotFoundError):
            await runtime.tasks.load_image(task.task_id, red.images[0].digest, ANYBODY)


async def test_hostile_images_are_named_and_never_kept(house: House) -> None:
    async with house.open() as runtime:
        task = await carry_out(runtime, painting_plan("hostile", "many"))
        hostile, many = await results_of(runtime, task)
        assert hostile.images == ()
        assert hostile.text.count("not kept: ") == 4
        assert len(await show(runtime, task, many)) == MOST_IMAGES


async def test_what_a_task_has_no_room_for_is_named(house: House) -> None:
    house.limit(task_image_bytes=len(RED) + 10)
    async with house.open() as runtime:
        task = await carry_out(runtime, painting_plan("red", "both"))
        red, both = await results_of(runtime, task)
        assert await show(runtime, task, red) == [RED]
        assert await show(runtime, task, both) == [RED]
    why = f"a task has room for {len(RED) + 10} bytes of images (limits.task_image_bytes)"
    assert both.text.splitlines()[1] == f"[image, image/png, {len(BLUE)} bytes, not kept: {why}]"


async def test_the_model_of_a_step_gets_the_text_and_people_the_image(house: House) -> None:
    async with ModelServer() as models:
        house.use_model(models.base_url)
        models.on("Paint it", by_turn(Calls([("ledger__red", {})]), Text("It is painted.")))
        tools = [{"server": "ledger", "tool": "red"}]
        step = {"id": "do", "kind": "agent", "instruction": "Paint it", "tools": tools, "preapproved": True}
        async with house.open() as runtime:
            task = await carry_out(runtime, {"goal": "paint", "steps": [step]})
            (red,) = await results_of(runtime, task)
            assert await show(runtime, task, red) == [RED]
    assert (task.status, task.result) == (TaskStatus.COMPLETED, "It is painted.")
    assert red.text in models.requests[1].text


async def test_a_rerun_shows_the_images_of_the_results_that_it_reuses(house: House) -> None:
    async with house.open() as runtime:
        failed = await carry_out(runtime, painting_plan("red", then=dict(MISSING)))
        red, _ = await results_of(runtime, failed)
        again = await runtime.tasks.rerun(RerunSubmission(failed.task_id, "failed_step"), ANYBODY)
        await runtime.tasks.delete(failed.task_id, ANYBODY)
        assert await show(runtime, again, red) == [RED]


class WatchfulStore(SqliteStore):
    """A store that looks, at each event with images, whether they are there; the first write of images fails."""

    failures = 0
    seen: list[bytes | None] = []  # noqa: RUF012 - each test begins with an empty one

    async def save_images(self, task_id: str, images: Sequence[Image], most_bytes: int) -> frozenset[str]:
        if not type(self).failures:
            type(self).failures = 1
            raise StoreUnavailableError("The store is away.")
        return await super().save_images(task_id, images, most_bytes)

    async def append(self, task: Task, events: Sequence[Event], *, epoch: int | None = None) -> Task:
        for event in events:
            for image in event.result.images if isinstance(event, ToolReturned) else ():
                found = await self.load_image(task.task_id, image.digest)
                type(self).seen.append(found.data if found else None)
        return await super().append(task, events, epoch=epoch)


async def test_an_image_is_durable_before_the_event_that_names_it_also_after_an_outage(house: House) -> None:
    WatchfulStore.failures, WatchfulStore.seen = 0, []
    house.use_store(WatchfulStore)
    async with house.open() as runtime:
        task = await carry_out(runtime, painting_plan("both"))
    assert task.status is TaskStatus.COMPLETED
    assert WatchfulStore.seen == [RED, BLUE]
    assert WatchfulStore.failures == 1
