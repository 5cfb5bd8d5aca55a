"""The tokens that language models use."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Input and output tokens of language models."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


BYTES_PER_TOKEN = 3
"""Assumed bytes of UTF-8 per token. A low value, so that estimates err on the high side."""


def estimate_tokens(*texts: str) -> int:
    """Estimate the tokens of these texts. Used where an endpoint does not report usage, or has not yet."""
    return sum(-(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN) for text in texts)
