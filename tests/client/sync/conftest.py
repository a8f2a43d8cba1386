"""A real node for clients in threads, which have no loop to start one from."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node_process import STOP_SECONDS, clean_environment, node_command


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a node that the tests of one module share."""
    directory: Path = tmp_path_factory.mktemp("node")
    with (
        (directory / "stderr").open("ab") as stderr,
        subprocess.Popen(
            node_command(directory / "data"), stdout=subprocess.PIPE, stderr=stderr, env=clean_environment()
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (directory / "stderr").read_text()
        try:
            yield json.loads(line)["rpc_addr"]
        finally:
            process.kill()
            process.wait(STOP_SECONDS)
