"""Clients come and go: nothing of them stays, neither where they ran nor at the node. `nox -s cycles` runs 10,000."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_clients_that_have_gone_leave_nothing(backend: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    cycles, seed = pytestconfig.getoption("--cycles"), pytestconfig.getoption("--cycles-seed")
    # In a process of its own: what it holds is counted, and under asyncio trio-asyncio must not have been imported.
    command = [sys.executable, "-W", "error", "-m", "tests.cycles", "--backend", backend, "--directory", str(tmp_path)]
    command += ["--cycles", str(cycles), "--seed", str(seed)]
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            code = process.wait()
        finally:
            # Its node too, if it could not end it any more.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert code == 0, output.read_text()
    print(output.read_text())  # noqa: T201 - its figures, where output is not captured
