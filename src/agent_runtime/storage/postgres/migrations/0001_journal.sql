-- The journal. `data` is the event's JSON exactly as it was encoded once; `at` is RFC 3339 UTC with microseconds. Each
-- record carries a hash over its content and the hash of the record before it (see domain/chain.py).
CREATE TABLE events (
    task_id text COLLATE "C" NOT NULL,
    seq     bigint           NOT NULL,
    epoch   bigint,
    at      text COLLATE "C" NOT NULL,
    type    text COLLATE "C" NOT NULL,
    data    text             NOT NULL,
    hash    text             NOT NULL,
    PRIMARY KEY (task_id, seq)
);

-- One row for each task, written in the transaction that writes its events. Prompt, submitter and request key are bytes
-- in UTF-8, because text holds no NUL here. `head` is the hash of the last record.
CREATE TABLE tasks (
    position         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id          text COLLATE "C" NOT NULL UNIQUE,
    version          bigint           NOT NULL,
    epoch            bigint           NOT NULL,
    status           text COLLATE "C" NOT NULL,
    prompt           bytea            NOT NULL,
    plan_revision    bigint           NOT NULL,
    cancel_requested boolean          NOT NULL,
    metadata         text             NOT NULL,
    created_at       text COLLATE "C" NOT NULL,
    updated_at       text COLLATE "C" NOT NULL,
    submitter        bytea            NOT NULL,
    request_key      bytea,
    head             text             NOT NULL,
    UNIQUE (submitter, request_key)
);

CREATE INDEX tasks_by_status ON tasks (status, position);

-- One row for each transaction that changed journals, chained to the row before it (see domain/commits.py). Only the
-- process that holds the lock of the chain writes here. Positions have no gaps and none is given twice.
CREATE TABLE commits (
    position bigint PRIMARY KEY,
    at       text   NOT NULL,
    type     text   NOT NULL,
    data     text   NOT NULL,
    hash     text   NOT NULL
);

-- The changes that other processes have committed and that are not in `commits` yet, in order for each task. The
-- process that writes the chain moves them. `data` is that of a commit; for a checkpoint, whether older rows are dropped.
CREATE TABLE pending_commits (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    type text   NOT NULL,
    data text   NOT NULL
);

-- What each server listed last, as JSON.
CREATE TABLE definitions (
    identity    text COLLATE "C" PRIMARY KEY,
    definitions text NOT NULL
);

-- One row, written to see whether the store can be written (G16).
CREATE TABLE heartbeat (
    id integer PRIMARY KEY CHECK (id = 1),
    at text    NOT NULL
);

-- The tasks that a start of the service took up, until it stops in order: how many starts in a row found a task with the
-- same number of facts (all its events but claims), so that it got nowhere before the service died.
CREATE TABLE starts (
    task_id text COLLATE "C" PRIMARY KEY,
    facts   bigint NOT NULL,
    count   bigint NOT NULL
);

-- What language models were asked for the plans of a task, and what they answered; no part of its journal.
CREATE TABLE planning_attempts (
    task_id text COLLATE "C" NOT NULL,
    number  bigint           NOT NULL,
    data    text             NOT NULL,
    PRIMARY KEY (task_id, number)
);
