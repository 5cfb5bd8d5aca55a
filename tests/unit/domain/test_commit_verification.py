"""Any history of a store is found whole, and whatever is changed in it is found (decision 19)."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from agent_runtime.domain.chain import GENESIS
from agent_runtime.domain.commit_verification import verify_commits
from agent_runtime.domain.commits import (
    CHANGES,
    CHECKPOINT,
    Change,
    Commit,
    CommitHead,
    Deletion,
    TaskChange,
    chain_commit,
    encode_changes,
    encode_checkpoint,
)
from agent_runtime.domain.values import digest

AT = "2026-11-29T00:00:00.000000Z"


class History:
    """The commits of a store and the hashes of its journals, as a store writes them."""

    def __init__(self) -> None:
        self.rows: list[Commit] = []
        self.journals: dict[str, list[str]] = {}
        self.heads = [CommitHead()]

    def hash_of(self, task_id: str, seq: int) -> str | None:
        journal = self.journals.get(task_id, [])
        return journal[seq - 1] if 1 <= seq <= len(journal) else None

    def lengths(self) -> Iterator[tuple[str, int]]:
        return ((task_id, len(journal)) for task_id, journal in self.journals.items())

    def verify(self, kept_head: CommitHead | None = None) -> list[str]:
        return [str(fault) for fault in verify_commits(self.rows, self, kept_head).faults]

    def grow(self, task_id: str, records: int) -> TaskChange:
        journal = self.journals.setdefault(task_id, [])
        first = len(journal) + 1
        for _ in range(records):
            journal.append(digest([journal[-1] if journal else GENESIS, task_id]))
        return Change(task_id, first, len(journal), journal[-1])

    def delete(self, task_id: str) -> TaskChange:
        journal = self.journals.pop(task_id)
        return Deletion(task_id, len(journal), journal[-1])

    def commit(self, changes: list[TaskChange]) -> None:
        self._add(CHANGES, encode_changes(changes))

    def checkpoint(self, *, drop: bool) -> None:
        heads = [Change(task_id, 1, len(journal), journal[-1]) for task_id, journal in self.journals.items()]
        self._add(CHECKPOINT, encode_checkpoint(heads, self.rows[-1] if self.rows else None, drop=drop))
        if drop:
            del self.rows[:-1], self.heads[:-2]

    def _add(self, kind: str, data: str) -> None:
        self.rows.append(Commit(*chain_commit(self.heads[-1], AT, kind, data)))
        self.heads.append(self.rows[-1].head)

    def rechain(self) -> None:
        """Compute the hashes of the rows anew, and their positions, as a forger would."""
        head = self.heads[0]
        for number, row in enumerate(self.rows):
            self.rows[number] = Commit(*chain_commit(head, row.at, row.type, row.data))
            head = self.rows[number].head


STEPS = st.one_of(
    st.tuples(st.just("grow"), st.sampled_from("abc"), st.integers(1, 3)),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.just(0)),
    st.tuples(st.sampled_from(["checkpoint", "drop"]), st.just(""), st.just(0)),
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    history = History()
    for step, task_id, records in draw(st.lists(STEPS, min_size=2, max_size=10)):
        if step == "grow":
            history.commit([history.grow(task_id, records)])
        elif step != "delete":
            history.checkpoint(drop=step == "drop")
        elif task_id in history.journals:
            history.commit([history.delete(task_id)])
    assume(history.journals)
    return history


@given(histories())
def test_what_a_store_has_written_is_found_whole_with_each_head_that_is_left(history: History) -> None:
    for head in (None, *history.heads):
        assert history.verify(head) == []


def change_row(history: History, number: int, **other: Any) -> None:
    history.rows[number] = replace(history.rows[number], **other)


ROW_CHANGES: list[Callable[[History, int], Any]] = [
    lambda history, number: change_row(history, number, at=AT.replace("29", "28")),
    lambda history, number: change_row(history, number, type="other"),
    lambda history, number: change_row(history, number, data=history.rows[number].data.replace("{", "{ ")),
    lambda history, number: change_row(history, number, hash=GENESIS),
    lambda history, number: history.rows.pop(number),
]


@given(histories(), st.data(), st.sampled_from(ROW_CHANGES))
def test_each_change_of_a_commit_is_found(history: History, data: st.DataObject, change: Any) -> None:
    number = data.draw(st.integers(0, len(history.rows) - 1))
    assume(history.rows[number].type != CHECKPOINT or number < len(history.rows) - 1)  # the end may be cut
    before = deepcopy(history.rows)
    change(history, number)
    assume(history.rows != before)
    assert history.verify()


@given(histories(), st.data(), st.sampled_from(ROW_CHANGES))
def test_with_a_head_so_is_each_change_before_it_though_the_chain_was_computed_anew(
    history: History, data: st.DataObject, change: Any
) -> None:
    number = data.draw(st.integers(0, len(history.rows) - 1))
    head = history.heads[data.draw(st.integers(number + 1, len(history.rows)))]
    before = deepcopy(history.rows)
    change(history, number)
    history.rechain()
    assume(history.rows != before)
    assert history.verify(head)


def write_anew(history: History, task_id: str, seq: int) -> None:
    journal = history.journals[task_id]
    for number in range(seq - 1, len(journal)):
        journal[number] = digest([journal[number]])


JOURNAL_CHANGES: list[Callable[[History, str, int], Any]] = [
    write_anew,
    lambda history, task_id, _: history.journals[task_id].pop(),
    lambda history, task_id, _: history.journals[task_id].append(GENESIS),
    lambda history, task_id, _: history.journals.pop(task_id),
    lambda history, task_id, seq: history.journals.update(new=history.journals[task_id][:seq]),
]


@given(histories(), st.data(), st.sampled_from(JOURNAL_CHANGES))
def test_each_journal_that_is_not_as_the_commits_name_it_is_found(
    history: History, data: st.DataObject, change: Any
) -> None:
    task_id = data.draw(st.sampled_from(sorted(history.journals)))
    seq = data.draw(st.integers(1, len(history.journals[task_id])))
    change(history, task_id, seq)
    (found,) = history.verify()
    assert found.startswith((task_id, "new"))
    history.commit([history.grow("later", 1)])
    assert history.verify() == [found]
