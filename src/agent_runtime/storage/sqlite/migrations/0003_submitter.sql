-- An idempotency key belongs to its caller: the same key of another submitter is another key. SQLite cannot drop a
-- UNIQUE of a column, so the table is made anew; positions are kept, and none is ever given twice.
CREATE TABLE tasks_with_submitter (
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
    submitter        TEXT    NOT NULL,
    request_key      TEXT,
    head             TEXT    NOT NULL,
    UNIQUE (submitter, request_key)
) STRICT;

INSERT INTO tasks_with_submitter
SELECT position, task_id, version, epoch, status, prompt, plan_revision, cancel_requested, metadata, created_at,
       updated_at,
       coalesce((SELECT json_extract(data, '$.actor') FROM events
                 WHERE events.task_id = tasks.task_id AND seq = 1 AND json_valid(data)), 'anonymous'),
       request_key, head
FROM tasks ORDER BY position;

-- The highest position that was ever given, also where its task is gone.
DELETE FROM sqlite_sequence WHERE name = 'tasks_with_submitter';
UPDATE sqlite_sequence SET name = 'tasks_with_submitter' WHERE name = 'tasks';
DROP TABLE tasks;
ALTER TABLE tasks_with_submitter RENAME TO tasks;
CREATE INDEX tasks_by_status ON tasks (status, position);
