import os
from collections.abc import AsyncIterator

import pytest

from proglog_trio.membership.wire.keyring import encode_key
from tests.interop.agents import SERF
from tests.interop.namespaces import network, why_none
from tests.interop.settings import Setting

KEY = encode_key(bytes(range(32)))
NO_NAMESPACES = why_none() if SERF is not None else "without serf there is no need for them"


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> str | None:
    """Everything is done twice, the second time encrypted."""
    assert request.param is None or isinstance(request.param, str)
    return request.param


@pytest.fixture(params=["bound", "defaults"])
async def setting(request: pytest.FixtureRequest) -> AsyncIterator[Setting]:
    """Everything is done with agents that are told what to bind, and with agents at their defaults."""
    if request.param == "bound":
        yield Setting()
        return
    if NO_NAMESPACES is not None:
        pytest.skip(NO_NAMESPACES)
    async with network() as running:
        yield Setting(running)


@pytest.fixture(scope="session", autouse=True)
def serf_is_installed() -> None:
    """Skip where there is no serf; with PROGLOG_REQUIRE_SERF=1 that is an error."""
    if SERF is None:
        reason = "serf is not installed; on Debian: apt-get install serf"
        if os.environ.get("PROGLOG_REQUIRE_SERF") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
