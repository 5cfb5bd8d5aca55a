-- The journal. `data` is the event's JSON exactly as it was encoded once; `at` is RFC 3339 UTC with microseconds.
CREATE TABLE events (
    task_id TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    epoch   INTEGER,
    at      TEXT    NOT NULL,
    type    TEXT    NOT NULL,
    data    TEXT    NOT NULL,
    PRIMARY KEY (task_id, seq)
) STRICT, WITHOUT ROWID;

-- One row for each task, written in the transaction that writes its events. AUTOINCREMENT: a position is never
-- given twice, so a cursor keeps its meaning after deletions.
CREATE TABLE tasks (
    position         INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id          TEXT    NOT NULL UNIQUE,
    version          INTEGER NOT NULL,
    epoch            INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    prompt           TEXT    NOT NULL,
    plan_revision    INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    metadata         TEXT    NOT NULL,
    created_at       TEXT    NOT NULL,
    updated_at       TEXT    NOT NULL,
    request_key      TEXT    UNIQUE
) STRICT;

CREATE INDEX tasks_by_status ON tasks (status, position);

-- What each server listed last, as a JSON array of tool definitions.
CREATE TABLE definitions (
    identity    TEXT NOT NULL PRIMARY KEY,
    definitions TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row, written to see whether the store can be written (G16).
CREATE TABLE heartbeat (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at TEXT    NOT NULL
) STRICT;
