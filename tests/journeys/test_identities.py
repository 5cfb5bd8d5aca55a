"""G4 and G6: a plan is approved for its servers and its model as they are. If they change before its first step, it is
shown and approved again; later, the task ends. Their own ledger proves that nothing was called.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_runtime.bootstrap import Runtime
from agent_runtime.domain.approval import Approve, Resolve
from agent_runtime.domain.caller import ANYBODY, Caller
from agent_runtime.domain.errors import DecisionRefusedError, DigestMismatchError, InvalidPlanError, PlanOutdatedError
from agent_runtime.domain.events import POLICY, PlanRepinned
from agent_runtime.domain.plan import Plan
from agent_runtime.domain.revisions import REGISTRY, format_diff
from agent_runtime.domain.status import TaskStatus
from agent_runtime.domain.task import Task
from agent_runtime.services.task_manager import Submission
from harness import House, approve_and_stop, ledger_plan, names, submit_plan, until_settled, until_status
from model_server import ModelServer
from model_server.replies import Text
from shifty import ShiftyHouse, plan_of

SECRET = "hunter2-hunter2"  # noqa: S105 - an example


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def config_of(house: House, **changed: Any) -> dict[str, Any]:
    """Return the configuration of the ledger's server with these fields changed; `env` is added to its own."""
    entries = json.loads(json.dumps(house.entries))
    config: dict[str, Any] = next(entry["config"] for entry in entries if entry["id"] == "ledger")
    return config | changed | {"env": config["env"] | changed.get("env", {})}


def move(house: House) -> None:
    (house.folder / "elsewhere").mkdir()
    house.write_registry(config=config_of(house, cwd="elsewhere"))


def swap_link(house: House) -> None:
    (house.folder / "current").unlink()
    (house.folder / "other").mkdir()
    (house.folder / "current").symlink_to("other")


CHANGES: dict[str, tuple[Callable[[House], None], str]] = {
    "folder": (move, "ledger: cwd was"),
    "environment": (
        lambda house: house.write_registry(config=config_of(house, env={"TARGET": "production"})),
        'ledger: env.TARGET was not set and is "production".',
    ),
    "argument": (
        lambda house: house.write_registry(config=config_of(house, args=[*config_of(house)["args"], "--all"])),
        "ledger: args was",
    ),
    "sandbox": (
        lambda house: house.write_registry(sandbox={"mode": "off"}),
        'ledger: sandbox.mode was "auto" and is "off".',
    ),
    "scope": (lambda house: house.write_registry(scope="shared"), 'ledger: scope was "task" and is "shared".'),
    "trust": (
        lambda house: house.write_registry(trust="annotations"),
        'ledger: trust was "none" and is "annotations".',
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_an_approval_that_meets_a_changed_server_is_refused_and_the_plan_is_shown_anew(
    house: House, change: str
) -> None:
    apply, said = CHANGES[change]
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    apply(house)
    async with house.open() as runtime:
        with pytest.raises(PlanOutdatedError) as try_approval:
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert said in str(try_approval.value)
        renewed = await runtime.tasks.get(task.task_id, ANYBODY)
        assert (renewed.status, renewed.plan_revision) == (TaskStatus.AWAITING_APPROVAL, 2)
        assert house.counted == []
        await runtime.tasks.decide(task.task_id, Approve(digest=renewed.plan_digest), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.status is TaskStatus.COMPLETED
    assert house.counted == ["one"]


async def test_the_next_revision_has_the_same_steps_and_says_what_has_changed(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    CHANGES["environment"][0](house)
    async with house.open() as runtime:
        renewed = await refused_and_renewed(runtime, task)
        first, second = await runtime.tasks.read_revisions(task.task_id, ANYBODY)
        assert second.by == REGISTRY
        assert second.feedback == 'ledger: env.TARGET was not set and is "production".'
        assert first.contract.steps == second.contract.steps
        assert '+servers.ledger.env.TARGET = "production"' in format_diff(first, second).split("\n")
    assert task.planned_at
    assert renewed.planned_at
    assert renewed.planned_at > task.planned_at  # the time for its approval begins anew


async def test_an_approver_who_may_not_read_is_not_told_what_has_changed(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    CHANGES["environment"][0](house)
    async with house.open() as runtime:
        approver = Caller("bob", "default", frozenset({"approve"}), "key")
        with pytest.raises(PlanOutdatedError) as try_approval:
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), approver)
    assert "TARGET" not in str(try_approval.value)


async def refused_and_renewed(runtime: Runtime, task: Task) -> Task:
    with pytest.raises(PlanOutdatedError):
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
    return await runtime.tasks.get(task.task_id, ANYBODY)


async def test_an_approval_without_a_digest_that_meets_a_changed_server_ends_the_task(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    CHANGES["environment"][0](house)
    async with house.open() as runtime:
        with pytest.raises(PlanOutdatedError, match=r"env\.TARGET"):
            await runtime.tasks.decide(task.task_id, Approve(), ANYBODY)
        end = await runtime.tasks.get(task.task_id, ANYBODY)
    assert end.status is TaskStatus.FAILED
    assert end.error
    assert end.error.code == "definition_changed"
    assert "env.TARGET" in end.error.message
    assert house.counted == []


async def test_many_approvals_at_once_make_one_revision_and_no_execution(house: House) -> None:
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    CHANGES["environment"][0](house)
    async with house.open() as runtime:

        async def try_approval() -> type[Exception] | None:
            try:
                await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
            except DecisionRefusedError as error:
                return type(error)
            return None

        kinds = await asyncio.gather(*(try_approval() for _ in range(20)))
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert journal.count("plan.repinned") == 1
    assert sorted(kind.__name__ for kind in kinds if kind) == ["DigestMismatchError"] * 19 + ["PlanOutdatedError"]
    assert DigestMismatchError in kinds
    assert house.counted == []


async def test_an_approved_plan_whose_server_changed_before_its_first_step_awaits_approval_anew(house: House) -> None:
    task = await approve_and_stop(house, ledger_plan("one"))
    CHANGES["environment"][0](house)
    async with house.open() as runtime:
        renewed = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        assert renewed.plan_revision == 2
        assert house.counted == []
        await runtime.tasks.decide(task.task_id, Approve(digest=renewed.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["one"]


async def test_an_approval_that_named_no_digest_is_not_asked_for_again(house: House) -> None:
    task = await approve_and_stop(house, ledger_plan("one"), names_digest=False)
    CHANGES["environment"][0](house)
    async with house.open() as runtime:
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert end.error.code == "definition_changed"
    assert house.counted == []


async def test_an_approved_plan_whose_servers_did_not_change_runs_after_a_restart(house: House) -> None:
    task = await approve_and_stop(house, ledger_plan("one"), names_digest=False)
    async with house.open() as runtime:
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert house.counted == ["one"]


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    """Run an endpoint that has one model, which the settings do not name."""
    async with ModelServer() as server:
        server.known = {"first"}
        server.on("", Text("Done."))
        yield server


def ask_model() -> Plan:
    return Plan.model_validate({"goal": "g", "steps": [{"id": "do", "kind": "agent", "instruction": "Say it."}]})


def use_found_model(house: House, models: ModelServer) -> None:
    house.use_model(models.base_url, model="")


async def test_the_model_that_the_endpoint_has_is_a_part_of_the_plan(house: House, models: ModelServer) -> None:
    use_found_model(house, models)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ask_model())
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.contract
    assert end.contract.model
    assert (end.status, end.contract.model.model) == (TaskStatus.COMPLETED, "first")
    assert [request.model for request in models.find_requests()] == ["first"]


async def test_an_approval_that_meets_another_model_at_the_endpoint_is_refused_and_the_plan_is_shown_anew(
    house: House, models: ModelServer
) -> None:
    use_found_model(house, models)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ask_model())
        models.known = {"second"}
        with pytest.raises(PlanOutdatedError, match='the model: model was "first" and is "second"'):
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        renewed = await runtime.tasks.get(task.task_id, ANYBODY)
        assert renewed.plan_revision == 2
        await runtime.tasks.decide(task.task_id, Approve(digest=renewed.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED
    assert [request.model for request in models.find_requests()] == ["second"]


async def test_an_approved_plan_that_finds_another_model_awaits_approval_anew(
    house: House, models: ModelServer
) -> None:
    use_found_model(house, models)
    task = await approve_and_stop(house, ask_model())
    models.known = {"second"}
    async with house.open() as runtime:
        renewed = await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
    assert renewed.plan_revision == 2
    assert models.find_requests() == []


async def test_an_approved_plan_whose_model_is_still_listed_runs(house: House, models: ModelServer) -> None:
    use_found_model(house, models)
    async with house.open() as runtime:
        task = await submit_plan(runtime, ask_model())
        models.known = {"a newer one", "first"}
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.COMPLETED


async def test_a_plan_with_agent_steps_is_refused_while_its_model_is_not_known(house: House) -> None:
    house.use_model("http://127.0.0.1:9/v1", model="")
    async with house.open() as runtime:
        with pytest.raises(InvalidPlanError, match=r"not known which one the endpoint has.*cannot be reached"):
            await submit_plan(runtime, ask_model())
        assert (await submit_plan(runtime, ledger_plan("one"))).contract


READ = {"look": {"effect": "read", "idempotent": True, "open_world": False}}
WRITE = {"look": {"effect": "write", "open_world": False}}


@pytest.mark.parametrize(("tools", "status"), [(READ, TaskStatus.COMPLETED), (WRITE, TaskStatus.AWAITING_APPROVAL)])
async def test_what_policy_had_approved_policy_judges_again(
    house: House, tools: dict[str, Any], status: TaskStatus
) -> None:
    house.set_approval(auto_effects=("read",))
    house.write_registry(tools=READ)
    plan = ledger_plan("one", tool="look")
    task = await approve_and_stop(house, plan, actor=POLICY)
    house.write_registry(config=config_of(house, env={"TARGET": "production"}), tools=tools)
    async with house.open() as runtime:
        end = await until_status(runtime, task.task_id, status)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert "plan.repinned" in journal
    assert end.plan_revision == 2
    assert house.counted == (["one"] if status is TaskStatus.COMPLETED else [])


async def test_a_server_that_changed_after_the_first_step_ends_the_task(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    house.limit(cancel_grace_s=0.1)
    house.write_entry(client_session_timeout_seconds=0.3)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("gate:one", "count:two"))
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert (await until_settled(runtime, task.task_id)).status is TaskStatus.NEEDS_ATTENTION
    house.write_entry(arguments=("--other",))
    async with house.open() as runtime:
        await runtime.tasks.decide(task.task_id, Resolve(step_id="s1", resolution="done"), ANYBODY)
        end = await until_settled(runtime, task.task_id)
        journal = names(await runtime.tasks.records(task.task_id, ANYBODY))
    assert end.error
    assert end.error.code == "definition_changed"
    assert "--other" in end.error.message
    assert journal[-2:] == ["tool.denied", "task.failed"]
    assert house.counted == ["one"]


async def test_another_root_of_a_built_in_server_is_another_server(house: House) -> None:
    plan = Plan.model_validate(
        {
            "steps": [
                {
                    "id": "s1",
                    "kind": "tool",
                    "server": "filesystem",
                    "tool": "list_directory",
                    "arguments": {"path": "."},
                }
            ]
        }
    )
    (house.folder / "current").symlink_to("files")
    house.root = "current"
    house.write_registry()
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan)
    swap_link(house)
    async with house.open() as runtime:
        with pytest.raises(PlanOutdatedError, match="filesystem: root was"):
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)


async def test_a_server_does_not_start_in_a_folder_that_was_swapped_under_the_running_service(house: House) -> None:
    (house.folder / "work").mkdir()
    house.write_registry(config=config_of(house, cwd="work"))
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
        (house.folder / "work").rmdir()
        (house.folder / "evil").mkdir()
        (house.folder / "work").symlink_to("evil")
        await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        end = await until_settled(runtime, task.task_id)
    assert end.error
    assert end.error.code == "server_unavailable"
    assert "replaced by a link" in end.error.message
    assert house.counted == []


async def test_a_literal_secret_that_changes_is_a_change_and_is_shown_nowhere(house: House) -> None:
    house.write_registry(config=config_of(house, env={"API_TOKEN": SECRET}))
    async with house.open() as runtime:
        task = await submit_plan(runtime, ledger_plan("one"))
    house.write_registry(config=config_of(house, env={"API_TOKEN": f"other-{SECRET}"}))
    async with house.open() as runtime:
        with pytest.raises(PlanOutdatedError, match=r"ledger: env\.API_TOKEN was"):
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        records = await runtime.tasks.records(task.task_id, ANYBODY)
        before, after = await runtime.tasks.read_revisions(task.task_id, ANYBODY)
    assert SECRET not in "".join(record.data for record in records)
    assert SECRET not in format_diff(before, after)


@pytest.mark.slow
async def test_a_plan_that_cannot_be_carried_out_on_the_changed_server_stays_as_it_is(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    async with house.open() as runtime:
        task = await submit_plan(runtime, plan_of("count:one"))
    house.list_tools([])
    house.write_entry(arguments=("--other",))
    async with house.open() as runtime:
        with pytest.raises(PlanOutdatedError, match="cannot run with the current servers and model"):
            await runtime.tasks.decide(task.task_id, Approve(digest=task.plan_digest), ANYBODY)
        assert await runtime.tasks.get(task.task_id, ANYBODY) == task


async def test_another_endpoint_of_the_model_is_a_change_of_a_plan_with_agent_steps(house: House) -> None:
    plan = Plan.model_validate({"steps": [{"id": "s1", "kind": "agent", "instruction": "Think."}]})
    house.use_model("http://127.0.0.1:9/v1")
    async with house.open() as runtime:
        agent, other = await submit_plan(runtime, plan), await submit_plan(runtime, ledger_plan("one"))
    house.use_model("http://127.0.0.1:10/v1")
    async with house.open() as runtime:
        with pytest.raises(PlanOutdatedError, match="the model: endpoints was"):
            await runtime.tasks.decide(agent.task_id, Approve(digest=agent.plan_digest), ANYBODY)
        await runtime.tasks.decide(other.task_id, Approve(digest=other.plan_digest), ANYBODY)
        assert (await until_settled(runtime, other.task_id)).status is TaskStatus.COMPLETED


async def test_the_journal_says_what_was_changed_by_whom_and_what_for(house: House) -> None:
    task = await approve_and_stop(house, ledger_plan("one"))
    CHANGES["environment"][0](house)
    async with house.open() as runtime:
        await until_status(runtime, task.task_id, TaskStatus.AWAITING_APPROVAL)
        events = [record.event for record in await runtime.tasks.records(task.task_id, ANYBODY)]
    (repinned,) = [event for event in events if isinstance(event, PlanRepinned)]
    assert repinned.differences == ('ledger: env.TARGET was not set and is "production".',)
    assert repinned.identities["ledger"]["env"]["TARGET"] == "production"


async def test_a_task_that_asks_for_auto_and_was_not_approved_by_policy_is_not_approved_by_it_later(
    house: House,
) -> None:
    house.set_approval(auto_effects=("read",))
    house.write_registry(tools=WRITE)
    async with house.open() as runtime:
        plan = ledger_plan("one", tool="look")
        task = await runtime.tasks.submit(Submission(prompt="count", plan=plan, approval="auto"), ANYBODY)
        assert task.status is TaskStatus.AWAITING_APPROVAL
    house.write_registry(config=config_of(house, env={"TARGET": "production"}), tools=READ)
    async with house.open() as runtime:
        renewed = await refused_and_renewed(runtime, task)
    assert renewed.status is TaskStatus.AWAITING_APPROVAL
    assert house.counted == []
