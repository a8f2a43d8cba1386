import pytest

from tests.interop.namespaces import why_none


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """What decides on the faults; shown when a test fails, and given again with --chaos-seed."""
    seed = int(request.config.getoption("--chaos-seed"))
    print(f"--chaos-seed {seed}")  # noqa: T201 - shown with a failure
    return seed


@pytest.fixture
def chaos_seconds(request: pytest.FixtureRequest) -> float:
    """How long there are faults."""
    return float(request.config.getoption("--chaos-seconds"))


@pytest.fixture(scope="session")
def has_namespaces() -> bool:
    """Whether nodes can have networks of their own, whose links can be cut."""
    return why_none() is None
