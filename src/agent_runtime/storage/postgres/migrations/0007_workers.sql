-- What others must know of each worker that lives: its process, its role, and the registry entries that it has. The row
-- is deleted with that of the heartbeat, when the worker leaves or is declared dead.
CREATE TABLE workers (
    id         bigint PRIMARY KEY REFERENCES procrastinate_workers (id) ON DELETE CASCADE,
    host       text        NOT NULL,
    pid        integer     NOT NULL,
    role       text        NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    entries    jsonb       NOT NULL
);
