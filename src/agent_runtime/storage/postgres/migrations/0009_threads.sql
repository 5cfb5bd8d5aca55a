-- The conversation of a front end that a task belongs to, for lists of its tasks. Tasks without one cost nothing here.
-- It is bytes in UTF-8, because text holds no NUL here.
ALTER TABLE tasks ADD COLUMN thread bytea;
CREATE INDEX tasks_by_thread ON tasks (thread, position) WHERE thread IS NOT NULL;
