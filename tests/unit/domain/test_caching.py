from hypothesis import given
from hypothesis import strategies as st

from agent_runtime.domain.caching import SizedCache, cache_short


def test_only_short_texts_are_remembered() -> None:
    asked: list[str] = []

    @cache_short(entries=2, characters=3)
    def note(text: str) -> int:
        asked.append(text)
        return len(text)

    assert [note("abc"), note("abc"), note("abcd"), note("abcd")] == [3, 3, 4, 4]
    assert asked == ["abc", "abcd", "abcd"]


def test_what_was_longest_unused_makes_room() -> None:
    cache: SizedCache[str] = SizedCache(10)
    cache.put("a", "A", 4)
    cache.put("b", "B", 4)
    assert cache.get("a") == "A"
    cache.put("c", "C", 4)
    assert [cache.get(key) for key in "abc"] == ["A", None, "C"]


def test_what_is_larger_than_the_cache_throws_nothing_out() -> None:
    cache: SizedCache[str] = SizedCache(10)
    cache.put("a", "A", 10)
    cache.put("b", "B", 11)
    assert [cache.get(key) for key in "ab"] == ["A", None]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 12))))
def test_the_sizes_never_add_up_to_more_than_the_capacity(puts: list[tuple[str, int]]) -> None:
    cache: SizedCache[int] = SizedCache(10)
    sizes: dict[str, int] = {}
    for key, size in puts:
        cache.put(key, size, size)
        sizes[key] = size
    assert sum(cache.get(key) or 0 for key in sizes) <= 10
