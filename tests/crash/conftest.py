import random

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each round its own seed, which its name shows: `--crash-seed SEED --crash-rounds 1` runs it again."""
    if "crash_seed" in metafunc.fixturenames:
        given = metafunc.config.getoption("--crash-seed")
        first = random.SystemRandom().randrange(1_000_000) if given is None else given
        seeds = range(first, first + metafunc.config.getoption("--crash-rounds"))
        metafunc.parametrize("crash_seed", seeds)
