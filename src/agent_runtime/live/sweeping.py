"""Repeats work in the background, such as the expiry of plans."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from agent_runtime.domain.errors import StoreUnavailableError

log = structlog.get_logger()

LONGEST_SLEEP_S = 60.0
"""Bounds the sleep, so that a changed clock or a suspended machine is noticed."""

RETRY_S = 1.0


async def keep_sweeping(sweep: Callable[[], Awaitable[float]], *, waits: str, failed: str) -> None:
    """Call `sweep` again and again until cancelled, each time after as many seconds as it has returned.

    After a failure it tries again: soon while the store is unavailable, which is logged as `waits`, and later after
    others, which are logged as `failed`.
    """
    while True:
        try:
            pause_s = await sweep()
        except StoreUnavailableError as error:
            log.warning(waits, error=str(error))
            pause_s = RETRY_S
        except Exception:  # the edge that owns the loop: no row of the database may end the service
            log.exception(failed)
            pause_s = LONGEST_SLEEP_S
        await asyncio.sleep(pause_s)
