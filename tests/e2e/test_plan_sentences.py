"""The sentences about a plan, over the real server: with real files, and with a server that is not trusted."""

import sys
from pathlib import Path
from typing import Any

import yaml

from serving import Service
from shifty import SERVER, ShiftyHouse, list_tools

NOTES = "one\ntwo\nthree\n"


def call(name: str, server: str, tool: str, **arguments: Any) -> dict[str, Any]:
    return {"id": name, "kind": "tool", "server": server, "tool": tool, "arguments": arguments}


def plan_of(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"goal": "g", "steps": list(steps)}


READ = call("s1", "filesystem", "read_file", path="notes.txt")
WRITE = call("s2", "filesystem", "write_file", path="count.txt", content="${s1.text}")


def preview(service: Service, task_id: str) -> Any:
    response = service.client.post(f"/v1/tasks/{task_id}/preview")
    assert response.status_code == 200, response.text
    return response.json()


def sentences(view: Any) -> list[str]:
    return [step["sentence"] for step in view["steps"]]


def test_a_preview_tells_what_the_files_of_a_plan_are_now(own_service: Service, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "notes.txt").write_text(NOTES, encoding="utf-8")
    task_id = own_service.submit(plan=plan_of(READ, WRITE))
    before = preview(own_service, task_id)
    assert sentences(before) == ["Reads notes.txt (3 lines, 14 bytes).", "Creates count.txt with the result of step 1."]
    assert before["as_of"] is not None
    assert (before["steps"][1]["effect"], before["steps"][1]["likely_effect"]) == ("destructive", "write")
    (files / "count.txt").write_text("x" * 876, encoding="utf-8")
    after = preview(own_service, task_id)
    assert sentences(after)[1] == "Replaces count.txt, which exists (876 bytes), with the result of step 1."
    assert (after["steps"][1]["likely_effect"], after["steps"][1]["effect_text"]) == ("destructive", "replaces a file")
    # A task is the same for everybody who looks at it, so it tells nothing of the present.
    steps = own_service.task(task_id)["steps"]
    assert [step["preview"]["sentence"] for step in steps] == [
        "Reads notes.txt.",
        "Writes the result of step 1 to count.txt, in place of anything that is there.",
    ]
    own_service.approve(task_id)
    own_service.wait_for_end(task_id)
    ended = preview(own_service, task_id)
    assert (ended["as_of"], sentences(ended)[0]) == (None, "Reads notes.txt.")


def test_nothing_outside_the_folder_of_the_server_is_looked_at(own_service: Service, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text(NOTES, encoding="utf-8")
    (tmp_path / "files" / "link.txt").symlink_to(tmp_path / "secret.txt")
    paths = ["../secret.txt", "link.txt", str(tmp_path / "secret.txt"), "../data/agent_runtime.db", "/etc/passwd", ""]
    reads = [call(f"s{at}", "filesystem", "read_file", path=path) for at, path in enumerate(paths)]
    view = preview(own_service, own_service.submit(plan=plan_of(*reads)))
    assert view["as_of"] is None
    assert not [sentence for sentence in sentences(view) if "bytes" in sentence or "exist" in sentence]


def test_files_of_another_folder_than_that_of_the_plan_are_not_looked_at(own_service: Service, tmp_path: Path) -> None:
    (tmp_path / "files" / "notes.txt").write_text(NOTES, encoding="utf-8")
    task_id = own_service.submit(plan=plan_of(READ))
    assert sentences(preview(own_service, task_id)) == ["Reads notes.txt (3 lines, 14 bytes)."]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("secret", encoding="utf-8")
    registry = own_service.settings.tool_registry
    registry.write_text(registry.read_text().replace("root: files", "root: other"), encoding="utf-8")
    assert own_service.client.post("/v1/tools/reload").is_success
    view = preview(own_service, task_id)
    assert (view["as_of"], sentences(view)) == (None, ["Reads notes.txt."])


def test_hostile_names_and_odd_files_do_not_break_a_preview(own_service: Service, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "a\u202e.txt").write_bytes(b"\0\xff")
    (files / "big.txt").write_bytes(b"x\n" * 2**20)
    (files / "sub").mkdir()
    names = ["a\u202e.txt", "big.txt", "sub", "<img src=x onerror=alert(1)>", "no/such/folder/a.txt"]
    reads = [call(f"s{at}", "filesystem", "read_file", path=name) for at, name in enumerate(names)]
    assert sentences(preview(own_service, own_service.submit(plan=plan_of(*reads)))) == [
        r"Reads a\u202e.txt (2 bytes).",
        "Reads big.txt (2,097,152 bytes).",
        "Reads sub, which is a folder now.",
        'Reads "<img src=x onerror=alert(1)>", which does not exist now.',
        "Reads no/such/folder/a.txt, which does not exist now.",
    ]


def test_the_difference_of_two_revisions_has_the_sentences_of_both(own_service: Service) -> None:
    task_id = own_service.submit(plan=plan_of(READ, WRITE))
    digest = own_service.task(task_id)["plan_digest"]
    other = call("s2", "filesystem", "append_file", path="count.txt", content="${s1.text}")
    more = call("s3", "filesystem", "file_info", path="count.txt")
    edited = own_service.client.put(
        f"/v1/tasks/{task_id}/plan", json=plan_of(READ, other, more), headers={"If-Match": f'"{digest}"'}
    )
    assert edited.status_code == 200, edited.text
    diff = own_service.get(f"/v1/tasks/{task_id}/plan/diff", **{"from": 1, "to": 2})
    assert {change["step_id"]: change["sentence"] for change in diff["changes"]} == {
        "s2": {
            "from": "Writes the result of step 1 to count.txt, in place of anything that is there.",
            "to": "Adds the result of step 1 to the end of count.txt.",
        },
        "s3": {"from": None, "to": "Looks up the type, size and date of count.txt, which step 2 writes."},
    }


def test_a_difference_calls_steps_by_their_numbers_in_the_later_plan(own_service: Service) -> None:
    task_id = own_service.submit(plan=plan_of(call("look", "filesystem", "list_directory"), READ, WRITE))
    digest = own_service.task(task_id)["plan_digest"]
    headers = {"If-Match": f'"{digest}"'}
    assert own_service.client.put(f"/v1/tasks/{task_id}/plan", json=plan_of(READ, WRITE), headers=headers).is_success
    diff = own_service.get(f"/v1/tasks/{task_id}/plan/diff", **{"from": 1, "to": 2})
    assert {change["step_id"]: change["sentence"] for change in diff["changes"]} == {
        "look": {"from": "Lists what is in the root folder.", "to": None}
    }


def test_a_server_that_is_not_trusted_is_quoted_with_what_it_claims(tmp_path: Path) -> None:
    house = ShiftyHouse(tmp_path)
    house.list_tools(list_tools(annotations={"readOnlyHint": True}))
    service = Service(tmp_path)
    registry = yaml.safe_load(service.settings.tool_registry.read_text())
    config = {"command": sys.executable, "args": ["-S", "-E", str(SERVER)]}
    registry["tool_registry"].append(
        {"id": "github", "type": "local_stdio", "config": {**config, "env": {"HOUSE": str(tmp_path)}}}
    )
    service.settings.tool_registry.write_text(yaml.safe_dump(registry), encoding="utf-8")
    with service:
        view = preview(service, service.submit(plan=plan_of(call("s1", "github", "count", label="<b>\u202e"))))
    (step,) = view["steps"]
    assert step["sentence"] == r'Asks the server github to run count with label "<b>\u202e".'
    assert step["effect_text"] == "effect unknown; the server says it only reads"
    assert step["likely_effect"] == "unknown"
