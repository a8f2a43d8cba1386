"""Clients come and go: nothing of them stays, neither where they ran nor at the node. `nox -s cycles` runs 10,000."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_clients_that_have_gone_leave_nothing(backend: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cycles, seed = pytestconfig.getoption("--cycles"), pytestconfig.getoption("--cycles-seed")
    # In a process of its own: what it holds is counted, and under asyncio trio-asyncio must not have been imported.
    command = [sys.executable, "-W", "error", "-m", "tests.cycles", "--backend", backend, "--directory", str(tmp_path)]
    done = subprocess.run(
        [*command, "--cycles", str(cycles), "--seed", str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout
    print(done.stdout)  # noqa: T201 - its figures, where output is not captured
