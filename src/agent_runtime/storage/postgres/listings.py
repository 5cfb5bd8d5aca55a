"""The statements on the table `catalogue`: what the servers of the registry listed, for all replicas."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isinf

from pydantic import ValidationError

from agent_runtime.domain.listings import Listing
from agent_runtime.storage.conversions import decode_definitions, encode_definitions
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.locks import LISTING
from agent_runtime.storage.postgres.rows import save_definitions

_SELECT = """
SELECT number, listing, definitions, asked_at, wanted_at, clock_timestamp()
FROM (SELECT %s::text COLLATE "C" AS identity) wanted
LEFT JOIN catalogue USING (identity) LEFT JOIN definitions USING (identity)
"""
_WANT = """
INSERT INTO catalogue (identity, wanted_at) VALUES (%s, clock_timestamp())
ON CONFLICT (identity) DO UPDATE SET wanted_at = clock_timestamp()
"""
_SAVE = """
INSERT INTO catalogue (identity, number, listing, asked_at) VALUES (%s, 1, %s, %s)
ON CONFLICT (identity) DO UPDATE
SET number = catalogue.number + 1, listing = excluded.listing, asked_at = excluded.asked_at RETURNING number
"""
_SELECT_NEWS = "SELECT identity, number, coalesce(wanted_at > asked_at, asked_at IS NULL) FROM catalogue"
_TRY_LOCK = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema() || %s)), clock_timestamp()"
_UNLOCK = "SELECT pg_advisory_unlock(%s, hashtext(current_schema() || %s))"

_FAILURE_S = 5.0
"""A listing that failed longer ago is never good enough for somebody who wants one that is not old."""


@dataclass(frozen=True, slots=True)
class StoredListing:
    """The stored listing of a server; None if there is none, or none that this version can read.

    `number` grows with each listing. All times are by the clock of the database.
    """

    number: int
    listing: Listing | None
    asked_at: datetime | None
    wanted_at: datetime | None
    now: datetime

    def oldest_enough(self, age_s: float) -> tuple[datetime | None, datetime | None]:
        """Return since when a listing must have been asked for to be good enough, and since when a failure."""
        if isinf(age_s):
            return self.wanted_at, self.wanted_at
        oldest = [self.now - timedelta(seconds=seconds) for seconds in (age_s, min(age_s, _FAILURE_S))]
        listed, failed = (max(time, self.wanted_at) if self.wanted_at else time for time in oldest)
        return listed, failed

    def is_enough(self, listed: datetime | None, failed: datetime | None, *, compared: bool) -> bool:
        """Return whether it was asked for since then."""
        if self.listing is None or self.asked_at is None:
            return False
        if compared and not self.listing.compared and self.listing.failure is None:
            return False
        oldest = listed if self.listing.failure is None else failed
        return oldest is None or self.asked_at >= oldest


def select_listing(connection: Connection, key: str) -> StoredListing:
    number, listing, definitions, asked_at, wanted_at, now = connection.execute(_SELECT, (key,)).fetchone() or (None,)
    return StoredListing(number or 0, _read_listing(listing, definitions), asked_at, wanted_at, now)


def _read_listing(listing: str | None, definitions: str | None) -> Listing | None:
    if listing is None:
        return None
    try:
        found = Listing.model_validate_json(listing)
    except ValidationError:  # of another version
        return None
    if found.failure is not None:
        return found
    judged = decode_definitions(definitions or "")
    return None if judged is None else found.model_copy(update={"judged": tuple(judged)})


def want_listing(connection: Connection, key: str) -> None:
    connection.execute(_WANT, (key,))


def save_listing(connection: Connection, key: str, listing: Listing, asked_at: datetime) -> int:
    """Store a listing and return its number. The definitions of an earlier one stay if the server failed."""
    if listing.failure is None:
        save_definitions(connection, key, encode_definitions(listing.judged))
    text = listing.model_dump_json(exclude={"judged"})
    (number,) = connection.execute(_SAVE, (key, text, asked_at)).fetchone() or (0,)
    return int(number)


def select_news(connection: Connection) -> Iterator[tuple[str, int, bool]]:
    """Yield the key of each server, the number of its listing, and whether a newer one is wanted."""
    yield from connection.execute(_SELECT_NEWS)


def try_lock_listing(connection: Connection, key: str) -> datetime | None:
    """Return the time if this session may ask the server now; None if another one does."""
    taken, now = connection.execute(_TRY_LOCK, (LISTING, key)).fetchone() or (False, None)
    return now if taken else None


def unlock_listing(connection: Connection, key: str) -> None:
    connection.execute(_UNLOCK, (LISTING, key))
