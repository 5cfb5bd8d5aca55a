"""A pytest plugin that speeds up tests which run thousands of times.

The fastest tests run first, as measured by mutmut, so that most mutants end quickly. Hypothesis has no deadline, since
a slow machine must not count as a test that noticed. Inherited objects are excluded from garbage collection, which
pytest runs several times at its end, and which takes most of the time of a mutant.
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
