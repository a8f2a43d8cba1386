import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each round its own seed, which its name shows: `--crash-seed SEED --crash-rounds 1` runs it again."""
    if "crash_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--crash-seed")
        seeds = range(first, first + metafunc.config.getoption("--crash-rounds"))
        metafunc.parametrize("crash_seed", seeds)
