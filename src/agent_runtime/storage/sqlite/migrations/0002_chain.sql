-- Each record carries a hash over its content and the hash of the record before it (see domain/chain.py); the task
-- carries that of its last record. What is there already gets its hashes in the same transaction, in Python.
ALTER TABLE events ADD COLUMN hash TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN head TEXT NOT NULL DEFAULT '';
