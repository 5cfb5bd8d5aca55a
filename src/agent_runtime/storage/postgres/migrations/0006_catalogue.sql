-- What is known of each MCP server, for all replicas; its definitions are in `definitions`. `number` grows with each
-- listing. `asked_at` is when the server was asked for it, `wanted_at` when a replica last wanted a newer one.
CREATE TABLE catalogue (
    identity  text COLLATE "C" PRIMARY KEY,
    number    bigint NOT NULL DEFAULT 0,
    listing   text,
    asked_at  timestamptz,
    wanted_at timestamptz
);
