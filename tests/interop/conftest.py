import os

import pytest

from .agents import SERF


@pytest.fixture(scope="session", autouse=True)
def serf_is_installed() -> None:
    """Skip where there is no serf; with PROGLOG_REQUIRE_SERF=1 that is an error."""
    if SERF is None:
        reason = "serf is not installed; on Debian: apt-get install serf"
        if os.environ.get("PROGLOG_REQUIRE_SERF") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
