"""Tools that are equal in two lists of a server, and tools whose definitions keep changing."""

from agent_runtime.domain.stability import Stability
from agent_runtime.domain.tools import ToolDefinition


def tool(description: str, name: str = "t", **schema: object) -> ToolDefinition:
    return ToolDefinition(name=name, description=description, inputSchema=schema)


def test_a_definition_that_differs_in_two_lists_is_unstable_and_its_neighbour_is_known() -> None:
    stability = Stability()
    good = tool("good", "good")
    assert stability.compare([tool("one"), good], [tool("two"), good])
    assert stability.unstable == {"t": "description was 'one' and is 'two'."}
    assert stability.is_known([good])
    assert not stability.is_known([tool("two")])


def test_the_order_of_a_set_is_no_difference() -> None:
    stability = Stability()
    assert not stability.compare([tool("a", required=["a", "b"])], [tool("a", required=["b", "a"])])
    assert not stability.unstable


def test_what_has_changed_once_is_not_unstable_any_more() -> None:
    stability = Stability()
    stability.compare([tool("one")], [tool("two")])
    stability.settle([tool("two")])
    assert not stability.unstable


def test_what_differs_in_every_list_stays_unstable() -> None:
    stability = Stability()
    stability.compare([tool("one")], [tool("two")])
    stability.settle([tool("three")])
    assert stability.unstable
    assert not stability.compare([tool("three")], [tool("four")])
    assert stability.unstable == {"t": "description was 'three' and is 'four'."}


def test_a_tool_that_is_gone_in_the_second_list_is_no_difference() -> None:
    stability = Stability()
    assert not stability.compare([tool("one")], [])
