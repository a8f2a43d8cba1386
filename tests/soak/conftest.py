import shutil

import pytest

from tests.interop.agents import SERF
from tests.interop.namespaces import why_none


@pytest.fixture
def soak_seconds(request: pytest.FixtureRequest) -> float:
    """How long packets are lost; see --soak-seconds."""
    return float(request.config.getoption("--soak-seconds"))


@pytest.fixture
def soak_members(request: pytest.FixtureRequest) -> int:
    """How many members there are, half of them agents."""
    return int(request.config.getoption("--soak-members"))


@pytest.fixture
def soak_seed(request: pytest.FixtureRequest) -> int:
    """What decides on who says what, and when."""
    return int(request.config.getoption("--soak-seed"))


@pytest.fixture(scope="session")
def lossy_machines() -> None:
    """Skip where there are no agents, or no networks that could lose packets."""
    if SERF is None:
        pytest.skip("serf is not installed; on Debian: apt-get install serf")
    if (reason := why_none()) is not None:
        pytest.skip(reason)
    if shutil.which("iptables") is None:
        pytest.skip("packets are lost by iptables, which is not installed")
