import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from proglog_trio.internal_errors import InternalErrors, Where

from .rpc.book_stubs import compile_stubs

# No deadlines: this machine's speed is nothing that a test should fail for.
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)
# The same examples each time, so that a change is blamed for what it broke; where a change brings other examples along
# (Hypothesis takes constants from the source) those are the same each time too. The longer profiles look for new ones.
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW, max_examples=60, derandomize=True)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW, max_examples=200, print_blob=True)
settings.register_profile("long", deadline=None, suppress_health_check=_SLOW, max_examples=5_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/crash and tests/chaos; here they are known however pytest is called."""
    group = parser.getgroup("proglog-trio")
    group.addoption("--crash-rounds", type=int, default=5, help="how often tests/crash kills a node (default: 5)")
    group.addoption("--crash-seed", type=int, default=None, help="the first round's seed (default: a random one)")
    group.addoption("--chaos-seconds", type=float, default=8, help="how long tests/chaos makes faults (default: 8)")
    group.addoption("--chaos-seed", type=int, default=None, help="what decides on the faults (default: random)")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker of tests in which something fails that nobody foresees."""
    config.addinivalue_line("markers", "internal_errors: error boundaries may catch something in this test")


@pytest.fixture(scope="session", autouse=True)
def structured_logging() -> None:
    """Send structlog's events the way of the standard library's, which pytest captures, and not to standard output."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the modules that grpcio's compiler makes of the book's own proto."""
    return compile_stubs(tmp_path_factory.mktemp("stubs"))


@pytest.fixture
def internal_errors() -> list[tuple[Where, Exception]]:
    """What error boundaries caught in this process; a test that asks for it may have some, as one with the marker."""
    return []


@pytest.fixture(autouse=True)
def no_internal_errors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a boundary caught something: what the program survives is a mistake all the same."""
    caught: list[tuple[Where, Exception]] = []
    are_expected = request.node.get_closest_marker("internal_errors") is not None
    if "internal_errors" in request.fixturenames:
        are_expected, caught = True, request.getfixturevalue("internal_errors")
    note = InternalErrors.note

    def noting(self: InternalErrors, where: Where, error: Exception, **context: object) -> None:
        caught.append((where, error))
        note(self, where, error, **context)

    monkeypatch.setattr(InternalErrors, "note", noting)
    yield
    assert are_expected or not caught, "an error boundary caught something"
