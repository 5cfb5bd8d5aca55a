import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest

from agent_runtime.cli import main
from odd_servers import run_http_server

ATTEMPT: dict[str, Any] = {
    "number": 2,
    "revision": 1,
    "duration_ms": 1500.0,
    "instructions": "Plan with these tools.",
    "messages": [{"role": "user", "content": "Add 1 and 2."}],
    "answer": "I cannot.",
    "outcome": "invalid_plan",
    "message": None,
    "faults": [{"field": "steps", "message": "There is none."}],
    "usage": {"input_tokens": 30, "output_tokens": 4},
    "cut": True,
}


class _Handler(BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        body = json.dumps(self.answers[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    with run_http_server(_Handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_each_attempt_is_shown_with_what_was_asked_answered_and_wrong(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _Handler.answers = {
        "/v1/tasks/task_11111111111111111111111111111111/planning": {
            "task_id": "task_11111111111111111111111111111111",
            "attempts": [ATTEMPT],
        }
    }
    assert main(["planning", "task_11111111111111111111111111111111", "--server", url]) == 0
    assert capsys.readouterr().out == (
        "== Attempt 2, for revision 1: invalid_plan (30 + 4 tokens, 1.5 s)\n"
        "(long texts are shown in part)\n"
        "-- instructions\nPlan with these tools.\n"
        "-- user\nAdd 1 and 2.\n"
        "-- answer\nI cannot.\n"
        "-- fault steps\nThere is none.\n"
    )
    assert main(["planning", "task_11111111111111111111111111111111", "--json", "--server", url]) == 0
    assert json.loads(capsys.readouterr().out)["attempts"] == [ATTEMPT]


def test_a_task_without_attempts_says_so(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    _Handler.answers = {
        "/v1/tasks/task_11111111111111111111111111111111/planning": {
            "task_id": "task_11111111111111111111111111111111",
            "attempts": [],
        }
    }
    assert main(["planning", "task_11111111111111111111111111111111", "--server", url]) == 0
    assert "No language model was asked" in capsys.readouterr().err
