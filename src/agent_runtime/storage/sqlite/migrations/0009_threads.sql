-- The conversation of a front end that a task belongs to, for lists of its tasks. Tasks without one cost nothing here.
ALTER TABLE tasks ADD COLUMN thread TEXT;
CREATE INDEX tasks_by_thread ON tasks (thread, position) WHERE thread IS NOT NULL;
