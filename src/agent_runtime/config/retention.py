"""The settings that say how long ended tasks are kept."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from agent_runtime.config.section import Section
from agent_runtime.domain.status import TERMINAL, TaskStatus

_RetentionSeconds = Annotated[float | None, Field(gt=0, le=100 * 366 * 86400)]


class RetentionSettings(Section):
    """The seconds for which a task is kept after it has ended, for each final status; None: for ever.

    `state_s`: the seconds for which the state of a front end is kept after it was last saved.
    """

    completed_s: _RetentionSeconds = None
    failed_s: _RetentionSeconds = None
    rejected_s: _RetentionSeconds = None
    cancelled_s: _RetentionSeconds = None
    expired_s: _RetentionSeconds = None
    state_s: _RetentionSeconds = 30 * 86400

    @property
    def periods(self) -> dict[TaskStatus, timedelta]:
        """The period of each status that has one."""
        given = {status: getattr(self, f"{status}_s") for status in TERMINAL}
        return {status: timedelta(seconds=given[status]) for status in sorted(given) if given[status] is not None}
