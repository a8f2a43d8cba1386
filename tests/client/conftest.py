"""Runs each ``async def`` test here on every loop that clients run on.

Under Trio, by pytest-trio, and on asyncio's own loop; one without a virtual clock on uvloop too. The marker
``backends("trio")``, or with other names of these, says that it runs on no others, and ``backends(system=["uvloop"])``
which ones are left to the system's tests, for their time. `tests/backends.py` has the loops.
"""

import inspect
import math
import socket

import pytest
import trio.testing

from tests.backends import Clock, VirtualClock, asyncio_test

CLOCKS = {"autojump_clock", "mock_clock"}


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest) -> str:
    """The loop that this test runs on: trio, asyncio or uvloop; empty where it is no ``async def``."""
    name: str = getattr(request, "param", "")
    return name


@pytest.fixture
def mock_clock(backend: str) -> Clock:
    """Virtual time that stands still unless the test says otherwise."""
    return virtual_time(backend, math.inf)


@pytest.fixture
def autojump_clock(backend: str) -> Clock:
    """Virtual time that jumps whenever there is nothing else to do."""
    return virtual_time(backend, 0.0)


def virtual_time(backend: str, autojump_threshold: float) -> Clock:
    clock = trio.testing.MockClock() if backend == "trio" else VirtualClock()
    clock.autojump_threshold = autojump_threshold
    return clock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each backend."""
    if not inspect.iscoroutinefunction(metafunc.function):
        return
    backends = ["trio", "asyncio"] if CLOCKS & set(metafunc.fixturenames) else ["trio", "asyncio", "uvloop"]
    slow: list[str] = []
    if (marker := metafunc.definition.get_closest_marker("backends")) is not None:
        backends = list(marker.args) or backends
        slow = marker.kwargs.get("system", slow)
    values = [pytest.param(name, marks=pytest.mark.system if name in slow else ()) for name in backends]
    metafunc.parametrize("backend", values, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have what runs under asyncio be an ordinary function, before pytest-trio takes each ``async def`` for its own."""
    for item in items:
        if isinstance(item, pytest.Function) and (callspec := getattr(item, "callspec", None)) is not None:
            backend = callspec.params.get("backend", "")
            if backend in ("asyncio", "uvloop") and inspect.iscoroutinefunction(item.obj):
                item.obj = asyncio_test(item.obj, backend)
