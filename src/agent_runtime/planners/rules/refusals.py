"""Errors of the planner: which part it declines, why, what it could do instead, and how to get more."""

from collections.abc import Sequence

from agent_runtime.domain.errors import MissingToolError, PlanningError

_SHOWN = 160

CAPABILITIES = (
    "Without a language model, short English instructions are understood: read, write, append to, copy, move and "
    "delete text files, make, list and search folders, summarize a text, count its words, find its lines, calculate, "
    "and keep todos"
)
REMEDY = "For anything else configure a model: set OPENAI_API_KEY, or openai.base_url in config.yaml"
_REST = f"Nothing is planned unless every part is understood. {CAPABILITIES}. {REMEDY}."
HELP = (
    'asks for nothing that a tool could do: write what is to be done, as in "Read notes.txt and count its words", '
    '"Write hello to x.txt", "Add 15 and 27, then multiply the result by 2" or "Add a todo to buy milk"'
)


class RefusedPartError(PlanningError):
    """A part of the prompt is not understood. `wrong` is the sentence that names it and says why."""

    def __init__(self, wrong: str) -> None:
        super().__init__(f"{wrong} {_REST}")
        self.wrong = wrong


def make_refusal(part: str, why: str) -> RefusedPartError:
    """Return the error for a part of the prompt. `why` completes the sentence `The part "..." `, without
    the full stop.
    """
    return RefusedPartError(_write_sentence(part, why))


def extend_refusal(error: RefusedPartError, question: str, changes: str) -> PlanningError:
    """Return the error with a question after the sentence that says what is wrong. Empty texts are left out.

    `changes` says what can be said about a plan, in place of what a prompt can ask for.
    """
    rest = f"{changes} {REMEDY}." if changes else _REST
    return PlanningError(" ".join(filter(None, (error.wrong, question, rest))))


def ask_about(words: Sequence[tuple[str, str]]) -> str:
    """Return a question about misspelt words, each with the one that may be meant; empty without any."""
    meant = " and ".join(f'"{word}" instead of "{said}"' for said, word in words)
    return f"Did you mean {meant}?" if words else ""


def make_missing_tool_error(part: str, tool: str, home: str | None) -> MissingToolError:
    """Return the error for a part that needs a tool of this name. `home` is the built-in server that would have it."""
    server = f"a built-in {home} server, or of one like it" if home else "a server that reads web pages"
    why = (
        f"needs the tool {tool!r} of {server}, which is not there: no such server is listed in the tool registry, or "
        "it is disabled, unavailable, denied by the operator, or left out of this task's tools"
    )
    return MissingToolError(f"{_write_sentence(part, why)} {_REST}")


def _write_sentence(part: str, why: str) -> str:
    shown = " ".join(part.split())
    if len(shown) > _SHOWN:
        shown = shown[: _SHOWN - 4] + " ..."
    return f'The part "{shown}" {why}.'
