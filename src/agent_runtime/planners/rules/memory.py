"""The results so far, and which of them `it`, `the count` or `that file` refers to."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent_runtime.domain.errors import PlanningError
from agent_runtime.domain.values import JsonValue
from agent_runtime.planners.rules.meaning import Back
from agent_runtime.planners.rules.refusals import make_refusal

_PLURAL = frozenset({"them", "these", "those", "results"})
_COUNTS = frozenset({"words", "characters", "lines", "count"})
_NOUNS = {
    "sum": {"sum"},
    "difference": {"difference"},
    "product": {"product"},
    "quotient": {"quotient"},
    "average": {"average"},
    "count": _COUNTS,
}
"""Nouns for numbers that say how the number was made."""
_SORTS = {"summary": {"summary"}, "list": {"list", "search"}, "lines": {"found"}, "text": {"document", "written"}}
_WORKED_ON = frozenset({"document", "written"})
_SINGULAR = frozenset({"it", "its", "this", "that"})


@dataclass(frozen=True, slots=True)
class StepResult:
    """A result of earlier steps, as templates for each of its forms; None for a form that it lacks.

    `kind` says what it is; `search` is the list of the files of one name. `file` is the path where it is stored.
    `files` is the start of a reference to a list of paths, `longest` a reference to the path of the longest text among
    them. `lists` is the folder that it lists. `many` is the number of its items. `members` are several results at once,
    each remembered before.
    """

    kind: str
    text: str | None = None
    number: JsonValue = None
    file: str | None = None
    files: str | None = None
    longest: str | None = None
    lists: str | None = None
    many: str | None = None
    todo: str | None = None
    members: tuple["StepResult", ...] = ()


class Memory:
    """The results so far, the newest last. `part` is the text being read, for errors. `file` and `folder` were
    mentioned last. `looked_at` is the text that was read for a condition.
    """

    def __init__(self) -> None:
        self.part = ""
        self.file: str | None = None
        self.folder: str | None = None
        self.looked_at: StepResult | None = None
        self._got: list[StepResult] = []

    def remember(self, got: StepResult) -> StepResult:
        self._got.append(got)
        return got

    def exchange_file(self, old: JsonValue, new: JsonValue) -> None:
        """Remember a file by its new path. With None, what was written is forgotten, because it may not be any more."""
        if isinstance(new, str):
            self.file = new if self.file == old else self.file
            self._got = [
                replace(got, file=new) if got.file is not None and got.file == old else got for got in self._got
            ]
        elif new is None:
            self._got = [got for got in self._got if got.kind != "written"]

    def look_at_text(self) -> None:
        """Remember that `it` is the text that a condition looks at, and not the number that it compares."""
        text = self.find_latest(lambda got: got.kind in _WORKED_ON)
        self.looked_at = self.remember(text or StepResult("condition"))

    def is_file(self, back: Back) -> bool:
        """Return whether `it` is the file mentioned last, and not a text that is in no file.

        Raises: PlanningError where it may be the file, or something that was made of it.
        """
        latest = self.latest
        if latest is None or self.file is None:
            return latest is None
        if latest.kind not in _WORKED_ON or (latest.file is not None and latest.file != self.file):
            raise self.make_ambiguous_error(back.said)
        return latest.file is not None

    def forget_file(self, path: str) -> None:
        """Forget a file that is deleted. A text that was read from it before stays."""
        self.file = None
        self._got = [got for got in self._got if got.kind != "written" or got.file != path]

    @property
    def latest(self) -> StepResult | None:
        return self._got[-1] if self._got else None

    def find_latest(self, fits: Callable[[StepResult], bool]) -> StepResult | None:
        return next((got for got in reversed(self._got) if fits(got)), None)

    def make_unresolved_error(self, said: str) -> PlanningError:
        return make_refusal(self.part, f"speaks of {said!r}, and nothing that came before it can be meant: name it")

    def make_ambiguous_error(self, said: str) -> PlanningError:
        return make_refusal(
            self.part,
            f"is ambiguous: {said!r} may be any of several things that came before: name the one that is meant",
        )

    def thing(self, back: Back) -> StepResult:
        """Return the result that is meant, of any kind. Raises: PlanningError where none or several are possible."""
        if _is_plural(back):
            latest = self.latest
            if latest is not None and (latest.kind in {"list", "search", "found", "todo"} or len(self._got) == 1):
                return latest
            raise self.make_ambiguous_error(back.said) if latest else self.make_unresolved_error(back.said)
        kinds = _SORTS.get(back.sort)
        if back.sort == "list" and self.latest is not None and self.latest.kind == "todo":
            if self.find_latest(lambda got: got.kind in _SORTS["list"]):
                raise self.make_ambiguous_error(back.said)
            return self.latest
        return self._find_newest(back, lambda got: kinds is None or got.kind in kinds)

    def number(self, back: Back) -> StepResult:
        """Return the number that is meant; for `the sum` or `the count`, one that was made so. Raises:
        PlanningError.
        """
        latest = self.latest
        if back.sort == "any" and latest is not None and latest.kind == "document":
            return latest
        if _is_plural(back):
            raise self.make_ambiguous_error(back.said) if latest else self.make_unresolved_error(back.said)
        kinds = _NOUNS.get(back.said.split()[-1])
        numbers = [got for got in self._got if got.number is not None]
        if kinds and len(numbers) > 1:
            return self._find_newest(back, lambda got: got.kind in kinds)
        return self._find_newest(back, lambda got: got.number is not None)

    def text(self, back: Back) -> StepResult:
        """Return the text to work on. `it` means a document rather than something made from one. Raises:
        PlanningError.
        """
        latest = self.latest
        if latest is None:
            raise self.make_unresolved_error(back.said)
        if back.sort != "any" or _is_plural(back) or back.said not in {"it", "its"} or latest.kind == "todo":
            return self.thing(back)
        if any(got.kind in _WORKED_ON for got in self._got):
            return self._find_newest(back, lambda got: got.kind in _WORKED_ON)
        return self._find_newest(back, lambda got: got.text is not None and got.number is None)

    def _find_newest(self, back: Back, fits: Callable[[StepResult], bool]) -> StepResult:
        for got in reversed(self._got):
            if sum(fits(member) for member in got.members) > 1:
                raise self.make_ambiguous_error(back.said)
            if not got.members and fits(got):
                singular = back.said in _SINGULAR
                if (got.kind == "search" and singular) or (
                    got is self.looked_at and back.sort == "any" and not singular
                ):
                    raise self.make_ambiguous_error(back.said)
                return got
        raise self.make_unresolved_error(back.said)


def _is_plural(back: Back) -> bool:
    return back.said.split()[-1] in _PLURAL
