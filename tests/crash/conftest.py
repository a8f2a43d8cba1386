import pytest

# where nobody says how many; the others are the system's
PLAIN_ROUNDS, ROUNDS = 2, 10


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each round its own seed, which its name shows: `--crash-seed SEED --crash-rounds 1` runs it again."""
    if "crash_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--crash-seed")
        asked = metafunc.config.getoption("--crash-rounds")
        rounds = ROUNDS if asked is None else asked
        plain = PLAIN_ROUNDS if asked is None else asked
        seeds = [
            pytest.param(first + number, marks=() if number < plain else pytest.mark.system) for number in range(rounds)
        ]
        metafunc.parametrize("crash_seed", seeds)
