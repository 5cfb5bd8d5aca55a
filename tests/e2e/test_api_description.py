"""`/openapi.json` is exact: the service never refuses the form of a request that its schemas allow.

It may still refuse a request because of the current state. 404, 409, 412 and 428 always concern the state; 400, 413 and
415 concern the form. 422 concerns the form too, except for the codes and faults `OF_THE_STATE`, and for a well-formed
plan that the existing servers cannot execute (`invalid_plan`).

The tests do not send what JSON Schema cannot exclude: half of a surrogate pair, which is not UTF-8; a whole number
written as `5.0`, which JSON Schema considers an integer; and instructions of hidden characters alone (`is_blank`).
"""

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings

from agent_runtime.api.bodies import PlanBody
from agent_runtime.domain.errors import InvalidPlanError, RequestKeyReusedError
from agent_runtime.text.escaping import is_blank
from serving import Service

FEED = "/v1/events/stream"

if TYPE_CHECKING:
    from schemathesis import Case

OF_THE_STATE = {
    "approval": "'auto' is not allowed here",  # by the settings of the operator
    "cursor": "This is not a cursor",  # clients cannot construct one
    "after": "is beyond the end of the feed",
    "from": "There is no revision",
    "to": "There is no revision",
    "tools": "There is no enabled server",
    "server": "There is no enabled server",
    "step_id": "has no call of unknown outcome",
    "": "is beyond the end of this journal",
}
"""Messages about a field, or the whole request, that depend on the state of the service."""


def as_written(value: Any) -> Any:
    """Return the value with every whole number written as an integer."""
    if isinstance(value, dict):
        return {name: as_written(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [as_written(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def says_something(body: Any) -> bool:
    texts = [body[name] for name in ("prompt", "feedback") if name in body] if isinstance(body, dict) else []
    return not any(map(is_blank, texts))


def is_formed(plan: Any) -> bool:
    try:
        PlanBody.read(plan)
    except InvalidPlanError:
        return False
    return True


def faults_of_form(response: Any, body: Any) -> list[tuple[str, str]]:
    """Return the faults in the form of the request that the answer lists, as pairs of field and message."""
    if response.status_code < 400 or response.status_code in {404, 409, 412, 428}:
        return []
    problem = response.json()
    code = problem["type"].rpartition(":")[2]
    if code == RequestKeyReusedError.code or (code == InvalidPlanError.code and is_formed(body.get("plan", body))):
        return []
    faults = problem.get("errors", [{"field": "", "message": problem["detail"]}])
    said = [(fault["field"], fault["message"]) for fault in faults]
    return [(name, text) for name, text in said if OF_THE_STATE.get(name.partition("[")[0], "\0") not in text]


def head_of(service: Service, case: "Case[Any]") -> httpx2.Response:
    """Request a stream without end. Read the answer only if it is a problem."""
    sent = case.as_transport_kwargs(base_url=service.url)
    with service.client.stream("GET", sent["url"], params=sent["params"], headers=sent["headers"]) as response:
        if response.status_code >= 400:
            response.read()
        return response


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_that_the_description_allows_is_refused_for_its_form(service: Service) -> None:
    import schemathesis  # noqa: PLC0415 - takes a second, and the everyday suite does not need it

    schema = schemathesis.openapi.from_dict(service.client.get("/openapi.json").json())
    answered: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # the document is valid
        known = (
            service.complete_task() if operation.path.endswith("/stream") else service.submit()
        )  # an open stream has no end
        fixed: dict[str, Any] = {"path_parameters": {"task_id": known}} if operation.path.count("{") == 1 else {}

        @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(**fixed))
        def send(case: "Case[Any]") -> None:
            case.body = as_written(case.body)
            if says_something(case.body):
                response = head_of(service, case) if case.path == FEED else case.call(base_url=service.url)
                answered[case.operation.label] = answered.get(case.operation.label, 0) + 1
                assert faults_of_form(response, case.body) == []

        send()
    paths = service.client.get("/openapi.json").json()["paths"]
    assert answered.keys() == {f"{method.upper()} {path}" for path in paths for method in paths[path]}
