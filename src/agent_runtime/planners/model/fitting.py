"""Makes a request for a plan fit the context of a model that turned out to be too small for it."""

from dataclasses import dataclass

MOST_SHRINKS = 2
"""How often the catalogue is made smaller for one plan."""

_LEAST_CATALOGUE = 60
_ANSWER = 1024
_ANSWER_SHARE = 4
_SCALES = (0.25, 4.0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The estimated tokens of a request: its catalogue, and all of it."""

    catalogue: int
    whole: int


class Fitting:
    """The size of the catalogue for one plan, and what is known of the context of the model.

    `catalogue_tokens` is the limit to list the tools with.
    """

    def __init__(self, catalogue_tokens: int) -> None:
        self.catalogue_tokens = catalogue_tokens
        self._shrinks_left = MOST_SHRINKS
        self._context: int | None = None
        self._scale: float | None = None

    @property
    def has_shrunk(self) -> bool:
        """Return whether the catalogue is smaller than it was to be."""
        return self._shrinks_left < MOST_SHRINKS

    def learn(self, sizes: Sizes, context: int | None, question: int | None) -> None:
        """Take over what the endpoint says of a request of these sizes: its context, and the tokens that it counted."""
        self._context = context or self._context
        if question:
            low, high = _SCALES
            self._scale = min(max(question / sizes.whole, low), high)

    def is_too_long(self, sizes: Sizes) -> bool:
        """Return whether a request of these sizes, with a short answer, is known not to fit."""
        return self._context is not None and self._measure_room(sizes) < sizes.catalogue

    def shrink(self, sizes: Sizes) -> bool:
        """Lower `catalogue_tokens` after a request of these sizes did not fit.

        It becomes what the context leaves beside the rest of the request and a short answer, if the context is known,
        else half of what the catalogue had. Return False if that was done twice, or would leave no room for tools.
        """
        if not self._shrinks_left:
            return False
        room = half = sizes.catalogue // 2
        if self._context is not None:
            room = min(self._measure_room(sizes), sizes.catalogue * 9 // 10)
            if room < _LEAST_CATALOGUE and self._scale is None:
                room = half  # our estimate errs on the high side
        if room < _LEAST_CATALOGUE:
            return False
        self._shrinks_left -= 1
        self.catalogue_tokens = room
        return True

    def _measure_room(self, sizes: Sizes) -> int:
        """Return the tokens that the known context leaves for the catalogue, by our estimate."""
        context = self._context or 0
        answer = min(_ANSWER, context // _ANSWER_SHARE)
        return int((context - answer) / (self._scale or 1.0)) - (sizes.whole - sizes.catalogue)
