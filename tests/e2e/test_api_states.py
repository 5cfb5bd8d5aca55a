"""States of front ends over REST: saved whole, replaced by revision, bounded, and kept over a restart."""

from pathlib import Path
from typing import Any

import pytest

from callers import serve_with_keys
from serving import Service

PLACE = "/v1/state/agent/thread-1"


def code_of(response: Any) -> str:
    return str(response.json()["type"].rpartition(":")[2])


def test_a_state_is_saved_and_replaced_by_its_revision_and_survives_a_restart(own_service: Service) -> None:
    client = own_service.client
    missing = client.get(PLACE)
    assert (missing.status_code, code_of(missing)) == (404, "state_not_found")
    first = client.put(PLACE, json={"draft": "a", "z": [1, 2.5, None]}, headers={"If-None-Match": "*"})
    assert first.status_code == 201
    assert first.headers["etag"] == f'"{first.json()["revision"]}"'
    again = client.put(PLACE, json={}, headers={"If-None-Match": "*"})
    assert (again.status_code, code_of(again)) == (412, "state_changed")
    assert client.put(PLACE, json={}, headers={"If-None-Match": first.headers["etag"]}).status_code == 412
    both = {"If-Match": first.headers["etag"], "If-None-Match": "*"}
    assert client.put(PLACE, json={}, headers=both).status_code == 412
    both = {"If-Match": first.headers["etag"], "If-None-Match": '"another"'}
    second = client.put(PLACE, json={"draft": "b"}, headers=both)
    assert (second.status_code, second.json()["thread"]) == (200, "thread-1")
    late = client.put(PLACE, json={"draft": "c"}, headers={"If-Match": first.headers["etag"]})
    assert late.status_code == 412
    assert second.json()["revision"] in late.json()["detail"]
    own_service.stop()
    own_service.start()
    found = client.get(PLACE)
    assert (found.json(), found.headers["etag"]) == ({"draft": "b"}, second.headers["etag"])
    assert client.delete(PLACE, headers={"If-Match": first.headers["etag"]}).status_code == 412
    assert client.delete(PLACE, headers={"If-Match": second.headers["etag"]}).status_code == 204
    assert client.delete(PLACE).status_code == 404
    assert client.put(PLACE, json={}, headers={"If-Match": "*"}).status_code == 412


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b'{"a":1,"a":2}'}, 400),
        ({"content": b"{"}, 400),
        ({"content": b""}, 400),
        ({"json": []}, 422),
        ({"json": {"n": 1}, "headers": {"If-Match": "no quotes"}}, 400),
        ({"json": {"n": 1}, "headers": {"If-None-Match": "1-x"}}, 400),
        ({"content": b'{"n": 1e999}'}, 422),
        ({"json": {"text": "x" * 262_144}}, 413),
        ({"json": {"text": "x" * 1_100_000}}, 413),
    ],
)
def test_what_is_no_state_is_refused_and_changes_nothing(service: Service, sent: dict[str, Any], status: int) -> None:
    headers = {"Content-Type": "application/json", **sent.pop("headers", {})}
    response = service.client.put(PLACE, headers=headers, **sent)
    assert response.status_code == status, response.text
    if status == 413:
        assert "limits." in response.json()["detail"]
    assert service.client.get(PLACE).status_code == 404


def test_to_load_takes_read_and_to_save_takes_submit(tmp_path: Path) -> None:
    with serve_with_keys(tmp_path) as keyed:
        assert keyed.call("PUT", PLACE, "read", json={}).status_code == 403
        assert keyed.call("PUT", PLACE, "submit", json={"n": 1}).status_code == 201
        assert keyed.call("GET", PLACE, "submit").status_code == 403
        assert keyed.call("GET", PLACE, "read").json() == {"n": 1}
        assert keyed.call("DELETE", PLACE, "approve").status_code == 403
        assert keyed.call("GET", PLACE).status_code == 401
