-- The tasks that a start of the service took up, until it stops in order: how many starts in a row found a task with the
-- same number of facts (all its events but claims), so that it got nowhere before the service died.
CREATE TABLE starts (
    task_id TEXT    NOT NULL PRIMARY KEY,
    facts   INTEGER NOT NULL,
    count   INTEGER NOT NULL
) STRICT;
