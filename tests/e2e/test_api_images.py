"""Images in results over the wire: served as data that nothing runs, to whoever may read the task."""

import asyncio
from collections.abc import Iterator

import pytest

from agent_runtime.client import AsyncClient, Client, NotFoundError
from painting import BLUE, RED, images_of, painting_plan, serve_painter
from serving import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve_painter(tmp_path_factory.mktemp("service")) as service:
        yield service


def test_an_image_is_served_with_its_type_as_data_that_nothing_runs(service: Service) -> None:
    task_id = service.complete_task(plan=painting_plan("red"))
    (image,) = images_of(service, task_id)
    assert (image["media_type"], image["size"]) == ("image/png", len(RED))
    response = service.client.get(f"/v1/tasks/{task_id}/images/{image['digest']}")
    assert (response.status_code, response.content) == (200, RED)
    shown = {name: response.headers[name] for name in ("content-type", "cache-control", "x-content-type-options")}
    assert shown == {
        "content-type": "image/png",
        "cache-control": "private, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
    }
    assert response.headers["content-security-policy"] == "default-src 'none'; sandbox; frame-ancestors 'none'"
    assert response.headers["content-disposition"] == f'inline; filename="{image["digest"][7:19]}.png"'
    assert "Authorization" in response.headers["vary"]
    head = service.client.head(f"/v1/tasks/{task_id}/images/{image['digest']}")
    assert (head.headers["content-length"], head.content) == (str(len(RED)), b"")


def test_whatever_is_not_there_is_not_found(service: Service) -> None:
    task_id, other = (service.complete_task(plan=painting_plan(tool)) for tool in ("red", "blue"))
    (image,) = images_of(service, task_id)
    for name in (image["digest"][:-1], image["digest"].upper(), "sha256:", "%00", "a%2Fb", "%ff", "x" * 500):
        response = service.client.get(f"/v1/tasks/{task_id}/images/{name}")
        assert response.status_code == 404, name
        assert response.headers["cache-control"] == "no-store"
    refused = service.client.get(f"/v1/tasks/{other}/images/{image['digest']}")
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:agent-runtime:problem:image_not_found")
    unknown = service.client.get(f"/v1/tasks/task_none/images/{image['digest']}")
    assert unknown.json()["type"] == "urn:agent-runtime:problem:task_not_found"
    assert service.client.delete(f"/v1/tasks/{task_id}").status_code == 204
    assert service.client.get(f"/v1/tasks/{task_id}/images/{image['digest']}").status_code == 404


def test_the_python_clients_load_an_image(service: Service) -> None:
    task_id = service.complete_task(plan=painting_plan("both"))
    red, blue = (image["digest"] for image in images_of(service, task_id))

    async def load() -> list[bytes]:
        async with AsyncClient(service.url) as client:
            return [await client.load_image(task_id, digest) for digest in (red, blue)]

    assert asyncio.run(load()) == [RED, BLUE]
    with Client(service.url) as client:
        assert [client.load_image(task_id, digest) for digest in (red, blue)] == [RED, BLUE]
        with pytest.raises(NotFoundError, match="has no image"):
            client.load_image(task_id, f"{red}?x")
        with pytest.raises(NotFoundError):
            client.load_image(task_id, "../planning")
