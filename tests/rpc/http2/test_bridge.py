from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys

import pytest
import trio

from proglog_trio.rpc.http2 import bridge

# what a program that imports trio-asyncio itself and takes warnings for errors must say on Python 3.12 and later
SILENCED = "warnings.filterwarnings('ignore', \"'AbstractChildWatcher' is deprecated\", DeprecationWarning)"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "statements",
    [
        ["import proglog_trio.client"],
        ["import grpclib.client, grpclib.server"],
        [SILENCED, "import trio_asyncio"],
        ["async def nothing(): pass", "asyncio.run(nothing())"],
    ],
    ids=["ours", "grpclib", "trio_asyncio", "asyncio"],
)
def test_whatever_is_imported_first(statements: list[str]) -> None:
    """RPCs work, warnings are no errors, and asyncio has its own loops."""
    done = run_python("-m", "tests.rpc.import_orders", *statements)
    assert (done.returncode, done.stderr) == (0, "")


def test_loops_outside_trio_are_those_of_asyncio() -> None:
    async def running() -> type[asyncio.AbstractEventLoop]:
        return type(asyncio.get_running_loop())

    assert asyncio.run(running()) is asyncio.SelectorEventLoop
    with asyncio.Runner() as runner:
        assert type(runner.get_loop()) is asyncio.SelectorEventLoop
    for make in (asyncio.new_event_loop, asyncio.events.new_event_loop):
        loop = make()
        loop.close()
        assert type(loop) is asyncio.SelectorEventLoop


async def test_inside_trio_nothing_changes() -> None:
    async with bridge.open_loop() as loop:
        assert type(loop) is bridge.TrioEventLoop
        with pytest.raises(RuntimeError, match="within a Trio environment"):
            asyncio.new_event_loop()
    with pytest.raises(RuntimeError, match="within a Trio environment"):
        asyncio.new_event_loop()


def test_again_changes_nothing() -> None:
    importlib.reload(bridge)
    loop = asyncio.new_event_loop()
    loop.close()
    assert type(loop) is asyncio.SelectorEventLoop
    trio.run(test_inside_trio_nothing_changes)


def test_trio_asyncio_still_takes_all_loops() -> None:
    """When this fails, trio-asyncio leaves asyncio's loops alone: that part of bridge.py can go."""
    done = run_python(
        "-c", f"import asyncio, warnings; {SILENCED}; import trio_asyncio; print(asyncio.new_event_loop())"
    )
    assert "SyncTrioEventLoop" in done.stdout


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the class is deprecated from Python 3.12 on")
def test_trio_asyncio_still_warns() -> None:
    """When this fails, trio-asyncio can be imported without a warning: that part of bridge.py can go."""
    assert "AbstractChildWatcher" in run_python("-c", "import trio_asyncio").stderr
