-- One row for each transaction that changed journals: which, from which record to which, and their new heads; or that
-- tasks were deleted. Each is chained to the row before it (see domain/commits.py). Positions have no gaps and none is
-- given twice. A database that holds tasks already gets a checkpoint, which names all heads, as its first row, in Python.
CREATE TABLE commits (
    position INTEGER PRIMARY KEY,
    at       TEXT    NOT NULL,
    type     TEXT    NOT NULL,
    data     TEXT    NOT NULL,
    hash     TEXT    NOT NULL
) STRICT;
