"""Documents of clients: parsed within limits, validated, and remembered. Raises GraphQL's own errors, with codes."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    parse,
    validate,
)

from agent_runtime.api.copilotkit_graphql.schema import load_schema

MOST_CHARACTERS = 16_384
MOST_TOKENS = 2_000
MOST_DEPTH = 20
MOST_ALIASES = 15
MOST_FIELDS = 500
"""The limits of a document. `MOST_FIELDS` counts each field as often as fragments repeat it. The clients of CopilotKit
send about 250 tokens, 100 fields and 10 levels; a query for the whole schema 200 tokens and 15 levels.
"""

PARSE_FAILED, VALIDATION_FAILED = "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED"

_MOST_FAULTS = 20
_MOST_COMMENTS = 200
_REMEMBERED = 64


class DocumentRefusedError(Exception):
    """The document cannot be executed. `errors` are GraphQL's own, each with a code."""

    def __init__(self, errors: Iterable[GraphQLError], code: str) -> None:
        super().__init__(code)
        self.errors = [
            GraphQLError(one.message, one.nodes, one.source, one.positions, extensions={"code": code}) for one in errors
        ]


@lru_cache(maxsize=_REMEMBERED)
def read_document(text: str) -> DocumentNode:
    """Return the document, which is valid and within the limits. Raises: DocumentRefusedError."""
    try:
        document = parse(
            text, max_lexical_tokens=MOST_TOKENS, max_comments=_MOST_COMMENTS, max_source_length=MOST_CHARACTERS
        )
    except GraphQLError as error:
        raise DocumentRefusedError([error], PARSE_FAILED) from error
    except RecursionError:
        raise DocumentRefusedError([GraphQLError("The document is nested too deep.")], PARSE_FAILED) from None
    try:
        _Measure(document).check()
    except GraphQLError as error:
        raise DocumentRefusedError([error], VALIDATION_FAILED) from error
    errors = validate(load_schema(), document, max_errors=_MOST_FAULTS)
    if errors:
        raise DocumentRefusedError(errors, VALIDATION_FAILED)
    return document


class _Measure:
    """Measures a document with its fragments put in, before it is validated. A fragment in itself is left to that."""

    def __init__(self, document: DocumentNode) -> None:
        self._document = document
        self._fragments: Mapping[str, FragmentDefinitionNode] = {
            one.name.value: one for one in document.definitions if isinstance(one, FragmentDefinitionNode)
        }
        self._measured: dict[str, tuple[int, int, int]] = {}
        self._within: set[str] = set()

    def check(self) -> None:
        """Check all operations and fragments. Raises: GraphQLError, which names the limit."""
        for definition in self._document.definitions:
            if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
                self._limit(*self._measure(definition.selection_set, 0))

    def _limit(self, depth: int, fields: int, aliases: int) -> None:
        for what, size, limit in (
            ("levels", depth, MOST_DEPTH),
            ("fields", fields, MOST_FIELDS),
            ("aliases", aliases, MOST_ALIASES),
        ):
            if size > limit:
                raise GraphQLError(f"The document has more than {limit} {what}, which is the limit.")

    def _measure(self, selections: SelectionSetNode | None, level: int) -> tuple[int, int, int]:
        """Return the depth, the number of fields and that of aliases. Raises: GraphQLError if nested too deep."""
        if selections is None:
            return 0, 0, 0
        if level > 2 * MOST_DEPTH:  # inline fragments add no depth, and could be nested without end
            raise GraphQLError(f"The document has more than {MOST_DEPTH} levels, which is the limit.")
        depth = fields = aliases = 0
        for node in selections.selections:
            if isinstance(node, FieldNode):
                below, inner, named = self._measure(node.selection_set, level + 1)
                below, inner, named = below + 1, inner + 1, named + (node.alias is not None)
            elif isinstance(node, InlineFragmentNode):
                below, inner, named = self._measure(node.selection_set, level + 1)
            else:
                assert isinstance(node, FragmentSpreadNode)  # noqa: S101 - there is no fourth kind
                below, inner, named = self._measure_fragment(node.name.value, level + 1)
            depth, fields, aliases = max(depth, below), fields + inner, aliases + named
        return depth, fields, aliases

    def _measure_fragment(self, name: str, level: int) -> tuple[int, int, int]:
        fragment = self._fragments.get(name)
        if fragment is None or name in self._within:
            return 0, 0, 0
        if name not in self._measured:
            self._within.add(name)
            self._measured[name] = self._measure(fragment.selection_set, level)
            self._within.discard(name)
        return self._measured[name]
