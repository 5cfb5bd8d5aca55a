-- The states of front ends, one for each agent and thread; no part of a journal.
CREATE TABLE agent_states (
    agent    TEXT    NOT NULL,
    thread   TEXT    NOT NULL,
    number   INTEGER NOT NULL,
    data     TEXT    NOT NULL,
    saved_at TEXT    NOT NULL,
    PRIMARY KEY (agent, thread)
) STRICT;
CREATE INDEX agent_states_by_time ON agent_states (saved_at);
CREATE INDEX agent_states_by_thread ON agent_states (thread);
