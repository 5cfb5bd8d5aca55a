"""The tree of errors, and the decisions that a person can make."""

import re

import pytest
from pydantic import ValidationError

from agent_runtime.domain import errors
from agent_runtime.domain.approval import Approve, Resolve
from agent_runtime.domain.errors import AgentRuntimeError, DecisionRefusedError, Fault, InvalidInputError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AgentRuntimeError)]


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    drawn: list[tuple[str, str]] = []
    above: list[str] = []
    for indent, name in re.findall(r"^([|` -]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 3
        above[depth:] = [name]
        drawn.append((name, above[depth - 1] if depth else "Exception"))
    assert drawn == [(kind.__name__, kind.__bases__[0].__name__) for kind in KINDS]


def test_every_error_has_a_code_of_its_own_and_a_sentence_that_explains_it() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)
    assert all(kind.__doc__ for kind in KINDS)


def test_an_error_says_what_it_is_about() -> None:
    assert str(errors.TaskNotFoundError("t9")) == "There is no task 't9'."
    assert errors.TaskNotFoundError("t9").task_id == "t9"
    refused = DecisionRefusedError("It has ended.", "completed")
    assert (str(refused), refused.status) == ("It has ended.", "completed")
    gone = errors.ServerUnavailableError("files", "it exited")
    assert str(gone) == "MCP server 'files' is unavailable: it exited"
    assert (gone.server_id, gone.reason) == ("files", "it exited")
    owned = errors.AlreadyOwnedError("Taken.", url="http://127.0.0.1:1", pid=7)
    assert (str(owned), owned.url, owned.pid) == ("Taken.", "http://127.0.0.1:1", 7)
    wrong = InvalidInputError([Fault("prompt", "It is empty."), Fault("", "It is late.")])
    assert str(wrong) == "prompt: It is empty.; It is late."


def test_a_decision_says_nothing_that_is_not_asked() -> None:
    with pytest.raises(ValidationError, match="resolution"):
        Resolve.model_validate({"step_id": "s", "resolution": "perhaps"})
    with pytest.raises(ValidationError, match="force"):
        Approve.model_validate({"force": True})
