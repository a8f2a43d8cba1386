import os

import pytest

from proglog_trio.membership.wire.keyring import encode_key

from .agents import SERF

KEY = encode_key(bytes(range(32)))


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> str | None:
    """Everything is done twice, the second time encrypted."""
    assert request.param is None or isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="session", autouse=True)
def serf_is_installed() -> None:
    """Skip where there is no serf; with PROGLOG_REQUIRE_SERF=1 that is an error."""
    if SERF is None:
        reason = "serf is not installed; on Debian: apt-get install serf"
        if os.environ.get("PROGLOG_REQUIRE_SERF") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
