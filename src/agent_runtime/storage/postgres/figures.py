"""The figures of all processes that share a database, for metrics: their queue of jobs, and who is alive."""

from agent_runtime.domain.pauses import Pauses
from agent_runtime.domain.sharing import FleetFigures
from agent_runtime.storage.postgres.connecting import Connection
from agent_runtime.storage.postgres.locks import count_sharers

# A job that waits for an earlier one of its task is left out: it is not late. The oldest has the smallest id; the
# last event of a job that waits says since when.
_SELECT = """
WITH waiting AS (
    SELECT id FROM procrastinate_jobs job WHERE status = 'todo' AND queue_name <> 'later' AND NOT EXISTS (
        SELECT 1 FROM procrastinate_jobs other WHERE other.status = 'doing' AND other.lock = job.lock))
SELECT (SELECT count(*) FROM waiting),
       (SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'),
       (SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = 'later'),
       (SELECT coalesce(extract(epoch FROM clock_timestamp() - max(at)), 0)::float8 FROM procrastinate_events
        WHERE job_id = (SELECT min(id) FROM waiting)),
       (SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - make_interval(secs => %s))
"""

_SILENCE_S = Pauses().silence_s
"""A worker whose heart was silent for so long counts as dead."""


def select_figures(connection: Connection) -> FleetFigures:
    """Return the figures of now."""
    found = connection.execute(_SELECT, (_SILENCE_S,)).fetchone() or (0, 0, 0, 0.0, 0)
    waiting, running, later, oldest_s, workers = found
    return FleetFigures(waiting, running, later, oldest_s, workers, count_sharers(connection))
