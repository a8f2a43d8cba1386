"""Whole programs under asyncio, each in a process of its own: what it imports in which order, and Ctrl-C."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from proglog_trio.client import open_producer
from tests.client.harness import RunningNode, running_node

SECONDS = 60
PROGRAM = [sys.executable, "-W", "error", "-m", "tests.client.asyncio_program"]
# From Python 3.12 on it warns as it is imported.
TRIO_ASYNCIO = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import trio_asyncio
"""
# So that what is received is always too much for one turn.
SHORT_TURNS = "import proglog_trio.rpc.http2.transport as transport; transport._TURN_SECONDS = 0.0"

OWN_LOOP = asyncio.SelectorEventLoop.__name__


async def said_by(node: RunningNode, does: str, *statements: str) -> dict[str, Any]:
    """Run a program to its end and return what it says."""
    with anyio.fail_after(SECONDS):
        ended = await anyio.run_process(
            [*PROGRAM, node.address, does, *statements], stderr=subprocess.STDOUT, check=False
        )
    output = ended.stdout.decode()
    assert ended.returncode == 0, output
    said = json.loads(output)
    assert isinstance(said, dict)
    assert not said["threads"]
    return said


@pytest.mark.backends("asyncio")
@pytest.mark.parametrize(
    "statements",
    [
        (),
        pytest.param(("import grpclib.client, grpclib.server",), marks=pytest.mark.system),
        pytest.param(("import trio",), marks=pytest.mark.system),
    ],
)
async def test_asyncio_is_left_as_it_is(statements: tuple[str, ...], tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        said = await said_by(node, "plain", *statements)
        assert said == {"loop": OWN_LOOP, "trio_asyncio": False, "threads": []}


@pytest.mark.system
@pytest.mark.backends("asyncio")
async def test_uvloop(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        assert await said_by(node, "uvloop") == {"loop": "Loop", "trio_asyncio": False, "threads": []}


@pytest.mark.backends("asyncio")
@pytest.mark.parametrize(
    "statements",
    [
        (TRIO_ASYNCIO,),
        pytest.param((TRIO_ASYNCIO, "import grpclib.client, grpclib.server"), marks=pytest.mark.system),
        pytest.param(("import grpclib.client, grpclib.server", TRIO_ASYNCIO), marks=pytest.mark.system),
        pytest.param(("import proglog_trio.client", TRIO_ASYNCIO), marks=pytest.mark.system),
    ],
)
@pytest.mark.parametrize("does", ["plain", pytest.param("uvloop", marks=pytest.mark.system)])
async def test_beside_a_trio_asyncio_of_the_programs_own(
    statements: tuple[str, ...], does: str, tmp_path: Path
) -> None:
    """What that makes of asyncio.run is its own business: clients work on either loop."""
    async with running_node(tmp_path) as node:
        said = await said_by(node, does, *statements, SHORT_TURNS)
        assert said["trio_asyncio"]
        assert (said["loop"] == "Loop") == (does == "uvloop")


@pytest.mark.backends("asyncio")
@pytest.mark.system
@pytest.mark.parametrize("first", ["trio", "grpclib.client"])
async def test_under_both_at_once(first: str, tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        said = await said_by(node, "beside Trio", f"import {first}")
        assert said["loop"] == OWN_LOOP


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 has the first eager tasks")
@pytest.mark.backends("asyncio")
async def test_tasks_that_run_at_once(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        assert (await said_by(node, "eager"))["loop"] == OWN_LOOP


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a program, and kill it if it still runs at the block's end."""
    with subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@asynccontextmanager
async def filled_node(directory: Path) -> AsyncIterator[RunningNode]:
    """Run a node with many records, so that there is always something to read."""
    async with running_node(directory) as node:
        async with open_producer(node.address) as producer:
            for _ in range(20):
                await producer.send_batch([b"value"] * 5000)
        yield node


@pytest.mark.backends("asyncio")
@pytest.mark.parametrize(
    "does",
    [
        "send_without_pause",
        pytest.param("send_batches_without_pause", marks=pytest.mark.system),
        pytest.param("read_without_pause", marks=pytest.mark.system),
        pytest.param("wait_for_more", marks=pytest.mark.system),
    ],
)
async def test_ctrl_c_ends_a_busy_program_in_order(does: str, tmp_path: Path) -> None:
    """It cancels the program; once everything is left, KeyboardInterrupt comes out of asyncio.run."""
    async with filled_node(tmp_path) as node:
        with program(node.address, does) as running:
            assert running.stdout is not None
            assert await anyio.to_thread.run_sync(running.stdout.readline) == "begun\n"
            await anyio.sleep(0.1)
            running.send_signal(signal.SIGINT)
            output, errors = await anyio.to_thread.run_sync(running.communicate, None, SECONDS)
    assert output == "cancelled 1\n"
    assert running.returncode == -signal.SIGINT
    assert errors.endswith("KeyboardInterrupt\n"), errors
    assert errors.count("Traceback") <= 2, errors
