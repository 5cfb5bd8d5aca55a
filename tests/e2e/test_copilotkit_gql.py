"""CopilotKit's GraphQL, with its own clients, unmodified; and hostile documents, which get GraphQL's own errors."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import yaml
from graphql import get_introspection_query

from callers import KeyedService, serve_with_keys
from copilotkit_clients import run_last_server, talk
from serving import BUILTINS, Service, read_everything, sums

VERSIONS = ("1.10.6", "1.74.0")
SERVERS = Path(__file__).parents[1] / "servers"
PATH = "/copilotkit"
PAGE = "https://page.test"


def ask(service: Service, query: str, variables: Any = None, **headers: str) -> httpx2.Response:
    return service.client.post(f"{service.url}{PATH}", json={"query": query, "variables": variables}, headers=headers)


def answer_to(event: Any, response: Any) -> list[Any]:
    return [{"name": event["name"], "value": event["value"], "response": json.dumps(response)}]


def texts_of(said: Any) -> list[str]:
    return [message["content"] for message in said["messages"] if message["type"] == "TextMessage"]


class Chat:
    """A chat of a client of some version with the service."""

    def __init__(self, version: str, service: Service, prompt: str) -> None:
        self._version, self._service, self._prompt = version, service, prompt
        self._ids = {"threadId": str(uuid4()), "id": str(uuid4())}

    def send(self, **more: Any) -> Any:
        request = {"kind": "generate", **self._ids, "prompt": self._prompt, **more}
        return talk(self._version, self._service.url, **request)

    def load(self) -> Any:
        data = {"threadId": self._ids["threadId"], "agentName": "agent-runtime"}
        found = talk(self._version, self._service.url, kind="state", data=data)
        return found["data"]["loadAgentState"], found["messages"]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_sees_the_plan_approves_it_and_sees_calls_and_result(service: Service, version: str) -> None:
    (agent,) = talk(version, service.url, kind="agents")["availableAgents"]["agents"]
    assert agent["name"] == "agent-runtime"
    chat = Chat(version, service, "Add 1 and 2")
    planned = chat.send(states=[{"agentName": "agent-runtime", "state": '{"draft":1,"task":{"mine":true}}'}])
    assert planned["status"]["code"] == "Success"
    assert "calculator.add(a=1, b=2)" in texts_of(planned)[0]
    (event,) = planned["metaEvents"]
    shown = json.loads(event["value"])
    assert (shown["reason"], event["name"]) == ("confirmation", "LangGraphInterruptEvent")
    assert "calculator.add(a=1, b=2)" in shown["message"]
    done = chat.send(metaEvents=answer_to(event, {"approved": True}))
    assert (done["status"]["code"], done["metaEvents"], texts_of(done)) == ("Success", [], ["3"])
    calls = [message for message in done["messages"] if message["type"] == "ActionExecutionMessage"]
    results = [message for message in done["messages"] if message["type"] == "ResultMessage"]
    assert [(call["name"], call["arguments"]) for call in calls] == [("calculator.add", {"a": 1, "b": 2})]
    assert [(result["actionExecutionId"], result["result"]) for result in results] == [(calls[0]["id"], "3")]
    again = chat.send(metaEvents=answer_to(event, {"approved": True}))
    assert texts_of(again) == ["3"], "an answer that is sent twice changes nothing"
    state, messages = chat.load()
    assert state["threadExists"] is True
    assert json.loads(state["state"])["draft"] == 1
    assert json.loads(state["state"])["task"]["status"] == "completed"
    assert [message["content"] for message in messages if message["type"] == "TextMessage"][::2] == ["Add 1 and 2", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_denies_cancels_and_is_told_of_errors(service: Service, version: str) -> None:
    for response, status, code in (
        ({"approved": False}, "rejected", "Success"),
        ({"cancelled": True}, "cancelled", "Failed"),
    ):
        chat = Chat(version, service, "Add 1 and 2")
        (event,) = chat.send()["metaEvents"]
        done = chat.send(metaEvents=answer_to(event, response))
        task = service.task(json.loads(event["value"])["metadata"]["taskId"])
        assert (task["status"], done["status"]["code"]) == (status, code)
    failed = Chat(version, service, "frobnicate").send()
    assert (failed["status"]["code"], failed["status"]["reason"]) == ("Failed", "UNKNOWN_ERROR")
    assert failed["status"]["details"]["originalError"]["code"] == "planning_refused"
    (error,) = Chat(version, service, "Add 1 and 2").send(agent="nobody")["errors"]
    assert (error["extensions"]["code"], error["extensions"]["name"]) == ("AGENT_NOT_FOUND", "CopilotError")
    assert "stack" not in json.dumps(error)


@pytest.mark.slow
def test_the_schema_is_that_of_the_last_server_and_the_saving_of_states(service: Service) -> None:
    query = get_introspection_query(input_value_deprecation=True, specified_by_url=True)
    ours = _types_of(ask(service, query).json())
    with run_last_server() as url, httpx2.Client(timeout=60) as client:
        theirs = _types_of(client.post(url, json={"query": query}).json())
    assert set(ours) - set(theirs) - {"Int"} == {"SaveAgentStateInput", "SaveAgentStateResponse"}
    assert set(theirs) - set(ours) == set()
    fields = ours["Mutation"].pop("fields")
    assert [field["name"] for field in fields] == ["generateCopilotResponse", "saveAgentState"]
    assert fields[:1] == theirs["Mutation"].pop("fields")
    compared = [name for name in theirs if not name.startswith("__") and name != "Int"]
    assert len(compared) > 60
    assert {name: ours[name] for name in compared} == {name: theirs[name] for name in compared}


def _types_of(answer: Any) -> dict[str, Any]:
    return {one["name"]: _sort(one) for one in answer["data"]["__schema"]["types"]}


def _sort(value: Any) -> Any:
    """Return the value with every list of named things in the order of the names, and without what is newer."""
    if isinstance(value, list):
        return sorted(map(_sort, value), key=lambda one: one["name"] if isinstance(one, dict) else one)
    if isinstance(value, dict):
        return {name: _sort(inner) for name, inner in value.items() if name != "isOneOf"}
    return value


GENERATE = """mutation go($data: GenerateCopilotResponseInput!) { generateCopilotResponse(data: $data) {
  threadId ... on CopilotResponse @defer { status { ... on BaseResponseStatus { code } } }
  messages @stream { __typename ... on TextMessageOutput { content @stream } }
  metaEvents @stream { ... on LangGraphInterruptEvent { value } } } }"""


def chat_data(prompt: str, thread: str = "t") -> dict[str, Any]:
    said = {"id": str(uuid4()), "createdAt": "2026-01-02T03:04:05Z", "textMessage": {"role": "user", "content": prompt}}
    return {"data": {"threadId": thread, "messages": [said], "metadata": {}, "frontend": {"actions": []}}}


def parts_of(response: httpx2.Response) -> list[Any]:
    assert response.headers["content-type"] == 'multipart/mixed; boundary="-"'
    sections = response.text.split("\r\n---\r\n")[1:]
    return [json.loads(section.partition("\r\n\r\n")[2].removesuffix("\r\n-----\r\n")) for section in sections]


def test_an_answer_comes_in_parts_with_the_index_of_their_items(service: Service) -> None:
    first, *others = parts_of(ask(service, GENERATE, chat_data("Add 1 and 2", "parts")))
    assert first["data"]["generateCopilotResponse"]["messages"] == []
    assert [part["hasNext"] for part in (first, *others)] == [True] * len(others) + [False]
    items = [item for part in others for item in part.get("incremental", ()) if "items" in item]
    of_messages = [item for item in items if item["path"][:-1] == ["generateCopilotResponse", "messages"]]
    places = [item["path"][-1] + number for item in of_messages for number in range(len(item["items"]))]
    assert places == list(range(len(places)))
    assert any(item["path"][1:] == ["metaEvents", 0] for item in items)
    status = [item for part in others for item in part.get("incremental", ()) if "status" in (item.get("data") or {})]
    assert status[-1]["data"]["status"] == {"code": "Success"}
    refused = ask(service, GENERATE, chat_data("Add 1 and 2", "other"), Accept="application/json")
    assert refused.status_code == 406


def test_without_stream_and_defer_the_answer_comes_whole(service: Service) -> None:
    query = GENERATE.replace("@stream", "").replace("@defer", "")
    response = ask(service, query, chat_data("frobnicate", "whole"), Accept="application/json").json()
    assert response["data"]["generateCopilotResponse"]["status"] == {"code": "Failed"}


def test_a_plan_that_was_edited_and_not_approved_is_asked_about_again(service: Service) -> None:
    query = GENERATE.replace("@stream", "").replace("@defer", "")
    data = chat_data("Add 1 and 2", "edited")

    def generate() -> Any:
        answer = ask(service, query, data, Accept="application/json").json()["data"]["generateCopilotResponse"]
        return [json.loads(event["value"]) for event in answer["metaEvents"]]

    (plan,) = generate()
    event = {"name": "LangGraphInterruptEvent", "value": json.dumps(plan)}
    data["data"]["metaEvents"] = answer_to(event, {"approved": False, "editedPlan": sums(1)})
    (edited,) = generate()
    assert (edited["metadata"]["revision"], len(edited["metadata"]["plan"]["steps"])) == (2, 1)
    assert generate() == [edited], "the same answer, sent again"
    assert service.task(plan["metadata"]["taskId"])["status"] == "awaiting_approval"


@pytest.mark.parametrize(
    ("response", "action"), [({"cancelled": True}, "cancel"), ({"cancelled": True, "action": "decline"}, "decline")]
)
def test_the_question_of_a_server_is_dismissed_or_declined(
    tmp_path: Path, response: dict[str, Any], action: str
) -> None:
    service = Service(tmp_path)
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVERS / "asking_server.py")]}
    asking = {"id": "asking", "type": "local_stdio", "config": config, "tools": {"*": {"effect": "read"}}}
    service.settings.tool_registry.write_text(yaml.safe_dump({"tool_registry": [*BUILTINS, asking]}), encoding="utf-8")
    query = GENERATE.replace("@stream", "").replace("@defer", "")
    data = chat_data("Add 1 and 2")

    def generate(**answered: Any) -> list[Any]:
        answer = ask(service, query, {"data": data["data"] | answered}, Accept="application/json").json()
        return [json.loads(event["value"]) for event in answer["data"]["generateCopilotResponse"]["metaEvents"]]

    def reply(shown: Any, given: Any) -> list[Any]:
        return answer_to({"name": "LangGraphInterruptEvent", "value": json.dumps(shown)}, given)

    step = {"id": "s1", "kind": "tool", "server": "asking", "tool": "form"}
    with service:
        service.refresh_tools()
        (plan,) = generate()
        edited = {"approved": True, "editedPlan": {"goal": "ask", "steps": [step]}}
        (question,) = generate(metaEvents=reply(plan, edited))
        assert question["reason"] == "input_required"
        assert generate(metaEvents=reply(question, response)) == []
        task = service.wait_for_end(plan["metadata"]["taskId"])
    assert json.loads(task["result"]) == {"action": action}


def test_a_plan_that_cannot_be_revised_is_asked_about_again_with_the_reason(service: Service) -> None:
    query = GENERATE.replace("@stream", "").replace("@defer", "")
    data = chat_data("Add 1 and 2", "kept")

    def send() -> Any:
        return ask(service, query, data, Accept="application/json").json()["data"]["generateCopilotResponse"]

    (event,) = send()["metaEvents"]
    answer = {"approved": False, "comment": "with more gusto"}
    data["data"]["metaEvents"] = answer_to({"name": "LangGraphInterruptEvent", **event}, answer)
    kept = send()
    (said,) = [message["content"] for message in kept["messages"] if "content" in message]
    assert said[0].startswith("No other plan could be made, so revision 1 stays: ")
    (again,) = kept["metaEvents"]
    data["data"]["metaEvents"] = answer_to({"name": "LangGraphInterruptEvent", **again}, {"approved": True})
    assert json.loads(event["value"])["id"] != json.loads(again["value"])["id"]
    assert ["3"] in [message.get("content") for message in send()["messages"]]


DEEP = "{ __schema { types { " + "ofType { ".replace("ofType", "interfaces") * 30 + "name" + " }" * 33
HOSTILE: dict[str, tuple[Any, str]] = {
    "deep": ({"query": DEEP}, "20 levels"),
    "nested without end": ({"query": "{" + "a{" * 800 + "b" + "}" * 801}, "nested too deep"),
    "inline fragments without end": ({"query": "{" + "...{" * 300 + "hello" + "}" * 301}, "nested too deep"),
    "aliases": ({"query": "{" + " ".join(f"a{n}: hello" for n in range(200)) + "}"}, "15 aliases"),
    "the same field": ({"query": "{" + "hello " * 900 + "}"}, "500 fields"),
    "fragments that double": (
        {
            "query": "{...f0}"
            + "".join(f" fragment f{n} on Query {{...f{n + 1} ...f{n + 1}}}" for n in range(18))
            + " fragment f18 on Query {hello}"
        },
        "fields",
    ),
    "fragments in a circle": ({"query": "{...a} fragment a on Query {...b} fragment b on Query {...a}"}, "itself"),
    "huge": ({"query": "{hello" + " " * 20_000 + "}"}, "Source"),
    "tokens": ({"query": "{" + "a " * 3000 + "}"}, "token"),
    "comments": ({"query": "#\n" * 3000 + "{hello}"}, "comment"),
    "no document": ({"query": "{"}, "Syntax Error"),
    "not a text": ({"query": 5}, "'query'"),
    "variables that are a list": ({"query": "{hello}", "variables": []}, "'variables'"),
    "a list of requests": ([{"query": "{hello}"}], ""),
    "a missing variable": ({"query": GENERATE.replace("@stream", "").replace("@defer", "")}, "$data"),
    "a variable of another type": (
        {"query": "query($d: LoadAgentStateInput!){loadAgentState(data:$d){state}}", "variables": {"d": 5}},
        "$d",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_document_gets_an_error_of_graphql_and_changes_nothing(service: Service, name: str) -> None:
    body, said = HOSTILE[name]
    before = read_everything(service)
    response = service.client.post(f"{service.url}{PATH}", json=body)
    assert response.status_code == 400, response.text
    assert said in response.json()["errors"][0]["message"]
    assert len(response.content) < 10_000
    assert read_everything(service) == before


def test_a_body_that_is_no_json_gets_an_error_of_graphql(service: Service) -> None:
    for body in (b'{"query"', b"", b"[[[", b'{"query":"{hello}","query":"{hello}"}', b"\xff"):
        headers = {"Content-Type": "application/json"}
        response = service.client.post(f"{service.url}{PATH}", content=body, headers=headers)
        assert response.status_code == 400
        assert response.json()["errors"][0]["message"]


def test_what_an_operation_cannot_do_is_told_without_a_stack(service: Service) -> None:
    query = "mutation($d: SaveAgentStateInput!) { saveAgentState(data: $d) { revision } }"
    data = {"threadId": "kept", "agentName": "default", "state": '{"n":1}'}
    first = ask(service, query, {"d": data}).json()["data"]["saveAgentState"]["revision"]
    again = ask(service, query, {"d": {**data, "state": '{"n":2}', "revision": first}}).json()
    assert again["data"]["saveAgentState"]["revision"] != first
    for wrong, code, status in (
        ({"revision": first}, "state_changed", 412),
        ({"state": "[]"}, "invalid_input", 422),
        ({"state": "{"}, "bad_request", 400),
        ({"state": json.dumps({"text": "x" * 300_000})}, "state_too_large", 413),
    ):
        (error,) = ask(service, query, {"d": {**data, **wrong}}).json()["errors"]
        assert (error["extensions"]["originalError"]["code"], error["extensions"]["statusCode"]) == (code, status)
        assert "stack" not in json.dumps(error)


@pytest.fixture(scope="module")
def keyed_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyedService]:
    callers = {
        "reader": ("read",),
        "submitter": ("read", "submit"),
        "approver": ("read", "approve"),
        "blind": ("submit",),
    }
    folder: Path = tmp_path_factory.mktemp("keyed")
    with serve_with_keys(folder, callers, server={"allowed_origins": [PAGE]}) as keyed_service:
        yield keyed_service


def test_each_operation_needs_its_scope_and_an_answer_that_of_its_decision(keyed_service: KeyedService) -> None:
    query = GENERATE.replace("@stream", "").replace("@defer", "")

    def send(caller: str, query: str, variables: Any = None) -> Any:
        return keyed_service.call("POST", PATH, caller, json={"query": query, "variables": variables}).json()

    def code_of(answer: Any) -> str:
        extensions = answer["errors"][0]["extensions"]
        return f"{extensions['code']} {extensions['originalError']['code']}"

    refused = "AUTHENTICATION_ERROR scope_missing"
    data = chat_data("Add 1 and 2", "keyed")
    before = read_everything(keyed_service.service)
    assert code_of(send("reader", query, data)) == refused
    assert code_of(send("approver", query, data)) == refused
    assert code_of(send("blind", query, data)) == refused
    assert code_of(send("blind", "{availableAgents{agents{id}}}")) == refused
    save = 'mutation{saveAgentState(data:{threadId:"a",agentName:"default",state:"{}"}){revision}}'
    assert code_of(send("reader", save)) == refused
    assert read_everything(keyed_service.service) == before
    (event,) = send("submitter", query, data)["data"]["generateCopilotResponse"]["metaEvents"]
    answers = answer_to({"name": "LangGraphInterruptEvent", **event}, {"approved": True})
    data["data"]["metaEvents"] = answers
    assert code_of(send("submitter", query, data)) == refused
    elsewhere = {"data": {**data["data"], "threadId": "another"}}
    assert code_of(send("approver", query, elsewhere)) == "NOT_FOUND task_not_found"
    assert send("approver", query, data)["data"]["generateCopilotResponse"]["status"] == {"code": "Success"}


def test_a_page_of_an_allowed_origin_may_send_the_headers_of_the_client(keyed_service: KeyedService) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    response = keyed_service.call("OPTIONS", PATH, headers=asked)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "X-CopilotKit-Runtime-Client-GQL-Version" in response.headers["access-control-allow-headers"]
