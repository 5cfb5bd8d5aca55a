"""What language models have cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that language models have taken in and given out."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


BYTES_PER_TOKEN = 3
"""How many bytes of UTF-8 are taken for one token: few, so that an estimate is rather too high than too low."""


def estimate_tokens(*texts: str) -> int:
    """An estimate of the tokens of these texts, for endpoints that do not count, and before they have."""
    return sum(-(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN) for text in texts)
