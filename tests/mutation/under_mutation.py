"""A pytest plugin: how the tests run when each of them runs thousands of times, on a machine that does much else.

The quickest go first, by what mutmut measured, so that most mutants end within a moment. No example of Hypothesis has
a deadline, as a slow machine is not a test that noticed. What every worker inherits is kept from the garbage collector,
which pytest calls several times at its end: most of the time that a mutant takes.
"""

import gc
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

MEASURED = Path("mutmut-stats.json")

settings.register_profile(
    "mutation", derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def pytest_configure() -> None:
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MEASURED.exists():
        seconds: dict[str, float] = json.loads(MEASURED.read_text(encoding="utf-8"))["duration_by_test"]
        items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
