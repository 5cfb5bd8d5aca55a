"""The doctor's look at a language model, over the wire."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agent_runtime.cli.findings import Finding
from agent_runtime.cli.model_check import ANSWER_S, check_model
from agent_runtime.config import Secrets, Settings
from agent_runtime.domain.tools import BuiltinConfig, BuiltinServer, Tool, ToolDefinition, describe_tool
from model_server import MODEL, ModelServer
from model_server.doctor_answers import answer_doctor
from model_server.replies import Answer, Calls, Fault, FaultKind, Reply, Text
from model_server.requests import Request


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with ModelServer() as models:
        yield models


def make_tools(count: int) -> list[Tool]:
    server = BuiltinServer(id="desk", type="builtin", config=BuiltinConfig(server="text"))
    return [
        describe_tool(server, ToolDefinition(name=f"tool_{number}", description=f"Do the work of desk {number}."))
        for number in range(count)
    ]


async def check(
    models: ModelServer, *, tools: Sequence[Tool] = (), answer_s: float = ANSWER_S, **openai: Any
) -> dict[str, Finding]:
    """Return the findings by their names."""
    settings = Settings.model_validate({"openai": {"base_url": models.base_url, "model": MODEL, **openai}})
    found = await check_model(settings, Secrets(), tools, answer_s=answer_s)
    return {finding.check: finding for finding in found}


@pytest.mark.parametrize("api", ["responses", "chat_completions"])
async def test_all_that_plans_and_agent_steps_need_is_found(models: ModelServer, api: str) -> None:
    answer_doctor(models)
    found = await check(models, tools=make_tools(40), api=api)
    assert {check: finding.state for check, finding in found.items()} == dict.fromkeys(
        ["planner", "model", "model list", "model schema", "model tools", "model prompt"], "ok"
    )
    assert "tool_39" in models.find_requests("how much you can read")[-1].system


@pytest.mark.parametrize(
    ("reply", "state", "what"),
    [
        (Fault("unknown_model"), "fail", "set openai.model to one that it has"),
        (Fault("garbage"), "fail", "openai.base_url names an OpenAI-compatible API"),
        (Fault("out_of_quota"), "warn", "quota"),
        (Fault("empty"), "warn", "gave an empty answer"),
    ],
)
async def test_an_endpoint_that_does_not_answer_is_asked_no_more(
    models: ModelServer, reply: Answer, state: str, what: str
) -> None:
    models.on("", reply)
    found = await check(models)
    assert list(found) == ["planner", "model"] + ["model list"] * ("openai.model to one" in what)
    assert (found["model"].state, what in found["model"].detail) == (state, True)
    assert models.find_requests("kitchen") == []


@pytest.mark.parametrize(
    ("answers", "check_name", "what"),
    [
        ({"word": Text("Sure, I am fine!")}, "model", "did not return the requested JSON"),
        ({"word": Text('{"word": "hello"}')}, "model schema", "did not hold the answer to it (it said 'hello')"),
        ({"call": Text("It is warm.")}, "model tools", "answered in words: agent steps need"),
        (
            {"call": Text("<call>read_thermometer(kitchen)</call>")},
            "model tools",
            "wrote the call as text: agent steps",
        ),
        ({"call": Calls([("read_thermometer", {"rooms": 1})])}, "model tools", "arguments that do not fit"),
        ({"call": Calls([("read_thermometer", "{")])}, "model tools", "arguments that do not fit"),
        ({"call": Fault("server_error")}, "model tools", "try again later"),
        ({"prompt": Fault("context_overflow")}, "model prompt", "longer than 'test-model'"),
    ],
)
async def test_a_warning_names_what_the_model_cannot_do(
    models: ModelServer, answers: dict[str, Reply], check_name: str, what: str
) -> None:
    answer_doctor(models, **answers)
    finding = (await check(models))[check_name]
    assert (finding.state, what in finding.detail) == ("warn", True), finding


@pytest.mark.parametrize("level", ["json_object", "prompt"])
async def test_an_endpoint_that_takes_no_schema_is_named(models: ModelServer, level: str) -> None:
    models.levels = {"json_object"} if level == "json_object" else set()
    answer_doctor(models, word=Text('{"word": "hello"}'))
    found = await check(models)
    assert found["model"].state == "ok"
    assert (found["model schema"].state, "takes no schema" in found["model schema"].detail) == ("warn", True)


@pytest.mark.parametrize(
    "text", ["ok", "ok, but in more words than were asked for, so that it is cut off at its limit"]
)
async def test_a_prompt_that_is_cut_without_a_word_is_noticed(models: ModelServer, text: str) -> None:
    def count_at_most_1024(request: Request) -> Answer:
        return Text(text, usage=(min(len(request.text) // 4, 1024), 1))

    answer_doctor(models, prompt=count_at_most_1024)
    found = (await check(models, tools=make_tools(120)))["model prompt"]
    assert found.state == "warn"
    for part in ("of which 1024 were read", "OLLAMA_CONTEXT_LENGTH", "--ctx-size", "openai.catalogue_tokens"):
        assert part in found.detail


async def test_where_no_tokens_are_counted_it_is_said(models: ModelServer) -> None:
    models.tells_usage = False
    answer_doctor(models)
    found = await check(models)
    assert "tokens not counted" in found["model"].detail
    assert "counts no tokens" in found["model prompt"].detail
    assert re.search(r"that of a plan has about \d+ with the tools", found["model prompt"].detail)


@pytest.mark.parametrize(
    ("kind", "what"), [("stall_stream", "was still writing after 0.5 s"), ("hang", "gave no answer within 0.5 s")]
)
async def test_the_last_question_is_the_one_that_takes_too_long(
    models: ModelServer, kind: FaultKind, what: str
) -> None:
    answer_doctor(models, call=Fault(kind, "The kitchen is as warm as a kitchen should be."))
    found = await check(models, answer_s=0.5)
    assert list(found) == ["planner", "model", "model list", "model schema", "model tools"]
    assert (found["model tools"].state, what in found["model tools"].detail) == ("warn", True)


async def test_a_model_that_plans_nothing_is_only_asked_to_call_a_function(models: ModelServer) -> None:
    answer_doctor(models)
    settings = Settings.model_validate({"openai": {"base_url": models.base_url}, "planner": "rules"})
    found = await check_model(settings, Secrets(), make_tools(1))
    assert [finding.check for finding in found] == ["planner", "model", "model list", "model tools"]


async def test_the_models_of_an_endpoint_are_listed_and_one_that_is_not_among_them_is_named(
    models: ModelServer,
) -> None:
    models.known = {"tiny", "small"}
    answer_doctor(models)
    found = await check(models, model="small")
    assert (found["model list"].state, found["model list"].detail) == ("ok", "the endpoint lists small, tiny")
    found = await check(models, model="large")
    assert found["model"].state == "fail"
    assert (found["model list"].state, "small, tiny, and not large" in found["model list"].detail) == ("warn", True)
