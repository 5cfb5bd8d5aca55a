-- The images in the results of a task, which its journal names by the digests of their bytes. They are compressed already.
CREATE TABLE images (
    task_id text COLLATE "C" NOT NULL,
    digest  text COLLATE "C" NOT NULL,
    data    bytea            NOT NULL,
    PRIMARY KEY (task_id, digest)
);
ALTER TABLE images ALTER COLUMN data SET STORAGE EXTERNAL;
