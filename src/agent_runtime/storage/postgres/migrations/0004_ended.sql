-- The tasks that have ended, by their age, for `retention`. Only tasks that have ended are in it, so that it costs others
-- nothing. It goes by `created_at`, which never changes.
CREATE INDEX tasks_ended ON tasks (status, created_at)
WHERE status IN ('cancelled', 'completed', 'expired', 'failed', 'rejected');
