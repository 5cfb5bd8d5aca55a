"""The state of the tables of a database, compared with what this version needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schema:
    """The state of the tables. `number` is that of the last migration; 0: there are no tables yet.

    `known` is the number of migrations that this version knows. `missing` are the scripts that it has and the database
    has not.
    """

    number: int
    known: int
    missing: tuple[str, ...]

    @property
    def is_newer(self) -> bool:
        """Return whether a newer version has written the database, in a way that this one can work with."""
        return self.number > self.known
