"""The functions that run in a new process between fork and exec, where nothing may be imported, opened or locked.

Coverage leaves this module out: its tracer takes a lock, which another thread may hold at the moment of the fork. The
new process would wait for it for ever, and with uvloop so would this one.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache

_STANDARD = 3
_LAST = 2**32 - 1
_CLOSE_RANGE_CLOEXEC = 4
_SYS_CLOSE_RANGE = 436
"""The number of close_range(2) on every architecture. The flag needs Linux 5.11, the function a new C library."""

_PR_SET_PDEATHSIG = 1

_DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)
"""The limit with which this process was started."""


def before_exec(then: Callable[[], None] | None = None) -> Callable[[], None]:
    """Return a function to run in a new process between fork and exec, which calls `then` at its end.

    It closes all descriptors except the standard streams, because uvloop passes on inheritable ones: those that this
    process inherited, and a second copy of the pipes. It restores the limit of open files with which this process was
    started, because some programs rely on 1,024.
    """
    close_all = _find_closer()

    def prepare() -> None:
        close_all()
        resource.setrlimit(resource.RLIMIT_NOFILE, _DESCRIPTORS)
        if then is not None:
            then()

    return prepare


@cache
def die_with_parent() -> Callable[[], None]:
    """Return a function that has the kernel kill this process when the thread that started it ends; Linux only."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@cache
def _find_closer() -> Callable[[], None]:
    if sys.platform != "linux":
        return close_each
    system_call = ctypes.CDLL(None).syscall
    system_call.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint]

    def close_all() -> None:
        if system_call(_SYS_CLOSE_RANGE, _STANDARD, _LAST, _CLOSE_RANGE_CLOEXEC) != 0:
            close_each()

    return close_all


def close_each() -> None:
    """Close all descriptors except the standard streams, one by one, as older kernels need it."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - fewer objects than a path makes, between fork and exec
        if int(name) >= _STANDARD:
            with suppress(OSError):  # the descriptor of the listing itself
                os.set_inheritable(int(name), False)  # noqa: FBT003 - its shape
