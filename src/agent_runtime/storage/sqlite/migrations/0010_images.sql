-- The images in the results of a task, which its journal names by the digests of their bytes.
CREATE TABLE images (
    task_id TEXT NOT NULL,
    digest  TEXT NOT NULL,
    data    BLOB NOT NULL,
    PRIMARY KEY (task_id, digest)
) STRICT;
