"""`/openapi.json` is exact: what its schemas allow is never refused for its form.

A request may still be refused for the state of things. The two are told apart like this: 404, 409, 412 and 428 are
always about the state; 400, 413 and 415 about the form, and so is 422, but for the codes and faults `OF_THE_STATE` and
for a plan whose form is right and which the servers that there are cannot carry out (`invalid_plan`).

What JSON Schema cannot say is not sent: half of a surrogate pair, which is no UTF-8; a whole number that is written as
`5.0`, which is the same number to JSON Schema; and instructions of hidden characters alone (`is_blank`).
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
    "cursor": "This is not a cursor",  # whose form is the service's own
    "after": "is beyond the end of the feed",
    "from": "There is no revision",
    "to": "There is no revision",
    "tools": "There is no enabled server",
    "step_id": "has no call of unknown outcome",
    "": "is beyond the end of this journal",
}
"""What is said of a field, or of the whole request, because of what the service has or has not."""


def as_written(value: Any) -> Any:
    """Return the value with every whole number written as one."""
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
    """Return what the answer holds against the form of the request, as pairs of a field and a message."""
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
    """Return the answer to a request of a stream that has no end, read only where it is a problem."""
    sent = case.as_transport_kwargs(base_url=service.url)
    with service.client.stream("GET", sent["url"], params=sent["params"], headers=sent["headers"]) as response:
        if response.status_code >= 400:
            response.read()
        return response


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_that_the_description_allows_is_refused_for_its_form(service: Service) -> None:
    import schemathesis  # noqa: PLC0415 - it takes a second, and the everyday suite does not need it

    schema = schemathesis.openapi.from_dict(service.client.get("/openapi.json").json())
    answered: dict[str, int] = {}
    for found in schema.get_all_operations():
        operation = found.ok()  # type: ignore[union-attr]  # the document was found to be sound
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
