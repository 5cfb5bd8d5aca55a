-- Small values that all processes of the service share, such as the secret behind tickets and shown identities.
CREATE TABLE shared_values (
    name  text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);

-- The list of the built-in todo server. The text is bytes in UTF-8, because text holds no NUL here. The id of a deleted
-- todo is never used again.
CREATE TABLE todos (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text bytea   NOT NULL,
    done boolean NOT NULL DEFAULT false
);
