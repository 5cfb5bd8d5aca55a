-- The states of front ends, one for each agent and thread; no part of a journal.
CREATE TABLE agent_states (
    agent    text COLLATE "C" NOT NULL,
    thread   text COLLATE "C" NOT NULL,
    number   bigint           NOT NULL,
    data     text             NOT NULL,
    saved_at text COLLATE "C" NOT NULL,
    PRIMARY KEY (agent, thread)
);
CREATE INDEX agent_states_by_time ON agent_states (saved_at);
CREATE INDEX agent_states_by_thread ON agent_states (thread);
