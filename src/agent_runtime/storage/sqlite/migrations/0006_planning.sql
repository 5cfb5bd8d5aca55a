-- What language models were asked for the plans of a task, and what they answered; no part of its journal.
CREATE TABLE planning_attempts (
    task_id TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    data    TEXT    NOT NULL,
    PRIMARY KEY (task_id, number)
) STRICT;
