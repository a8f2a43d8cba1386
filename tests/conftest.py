import logging
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.workermanage import WorkerController

from proglog_trio.internal_errors import InternalErrors, Where
from tests.rpc.book_stubs import compile_stubs

# No deadlines: this machine's speed is nothing that a test should fail for.
_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)
# The same examples each time, so that a change is blamed for what it broke; where a change brings other examples along
# (Hypothesis takes constants from the source) those are the same each time too. The longer profiles look for new ones:
# `nox -s soak` takes `long`. What is too dear for the plain tests, larger clusters or every byte, is marked `system`.
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW, max_examples=60, derandomize=True)
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW, max_examples=200, print_blob=True)
settings.register_profile("long", deadline=None, suppress_health_check=_SLOW, max_examples=5_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# what is drawn at random unless it is given
SEEDS = ("crash_seed", "chaos_seed", "soak_seed", "cycles_seed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of tests/crash, chaos, soak and cycles; here they are known however pytest is called."""
    group = parser.getgroup("proglog-trio")
    group.addoption(
        "--crash-rounds",
        type=int,
        default=None,
        help="how often tests/crash kills a node (default: 2, and 8 with -m system)",
    )
    group.addoption("--crash-seed", type=int, default=None, help="the first round's seed (default: a random one)")
    group.addoption("--chaos-seconds", type=float, default=8, help="how long tests/chaos makes faults (default: 8)")
    group.addoption("--chaos-seed", type=int, default=None, help="what decides on the faults (default: random)")
    group.addoption(
        "--soak-seconds", type=float, default=None, help="run tests/soak, for so long (default: it is left out)"
    )
    group.addoption("--soak-members", type=int, default=30, help="in the cluster of tests/soak (default: 30)")
    group.addoption("--soak-seed", type=int, default=None, help="what decides on who says what (default: random)")
    group.addoption(
        "--cycles", type=int, default=50, help="how often clients of tests/cycles come and go (default: 50)"
    )
    group.addoption("--cycles-seed", type=int, default=None, help="what decides on how they leave (default: random)")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests where nobody says ``-n``.

    Two for each core, since tests wait for half of their time: for a process to start, for a disk, for gossip. None
    where output is not captured, which that of workers always is, and where only single tests were named.
    """
    if config.option.capture == "no" or all("::" in argument for argument in config.args):
        return 0
    return 2 * len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    """Draw what is random once for the run; workers take what was drawn, and so collect the same tests."""
    drawn: dict[str, int] = getattr(config, "workerinput", {})
    for name in SEEDS:
        if getattr(config.option, name) is None:
            setattr(config.option, name, drawn.get(name, random.SystemRandom().randrange(1_000_000)))
    keep_bytecode(config)
    # The contexts of who runs the tests are no business of theirs, and neither are their colours.
    os.environ["XDG_CONFIG_HOME"] = "/nonexistent"
    for name in ("NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it starts in the background ignore Ctrl-C, which is not what tests of Ctrl-C are about.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def keep_bytecode(config: pytest.Config) -> None:
    """Keep what is compiled in pytest's cache where PYTHONDONTWRITEBYTECODE asks for none beside the sources.

    Without that each of the hundreds of processes that tests start compiles some 800 modules first, which takes as long
    as importing them, and each worker rewrites the assertions of all tests.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", "") and (cache := getattr(config, "cache", None)) is not None:
        directory = str(cache.mkdir("bytecode"))
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = directory
        sys.dont_write_bytecode = False


def pytest_configure_node(node: WorkerController) -> None:
    """Give a worker what was drawn."""
    node.workerinput.update({name: getattr(node.config.option, name) for name in SEEDS})


def pytest_report_header(config: pytest.Config) -> str:
    """Say what was drawn, so that a run can be repeated."""
    drawn = (f"--{name.replace('_', '-')} {getattr(config.option, name)}" for name in SEEDS)
    return f"seeds: {' '.join(drawn)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the system's tests unless ``-m`` says which tests to take, or a file or a test was named.

    What soaks, which takes as long as one says, is left out unless one says how long.
    """
    if config.option.soak_seconds is None:
        _leave_out(config, items, {item for item in items if item.get_closest_marker("soak")})
    if config.option.markexpr:
        return
    named = {config.invocation_params.dir.joinpath(argument.partition("::")[0]).resolve() for argument in config.args}
    _leave_out(config, items, {item for item in items if item.get_closest_marker("system") and item.path not in named})


def _leave_out(config: pytest.Config, items: list[pytest.Item], left_out: set[pytest.Item]) -> None:
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


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
def restored_log_output(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back where log events go: a command that a test runs in this process sets it for the whole process.

    It would be for good even so in each module whose logger was used meanwhile, since a program has them cached.
    """
    root = logging.getLogger()
    handlers, level, before, configure = root.handlers[:], root.level, structlog.get_config(), structlog.configure

    def configure_uncached(**settings: Any) -> None:
        configure(**settings | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_uncached)
    yield
    if structlog.get_config() != before:
        configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)


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
