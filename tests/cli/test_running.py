import signal
import sys

import pytest
import trio

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.running import dialled, only_leaf, run_interruptible
from tests.node_process import STOP_SECONDS, read_line

SCRIPT = """
import time, trio
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.running import run_interruptible

async def main():
    print("running", flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("unwinding", flush=True)
        {unwinding}

raise SystemExit(run_interruptible(main, after_signal=ExitCode.{after_signal}))
"""


async def run_script(unwinding: str, signals: list[signal.Signals], after_signal: str = "INTERRUPTED") -> int:
    script = SCRIPT.format(unwinding=unwinding, after_signal=after_signal)
    process = await trio.lowlevel.open_process([sys.executable, "-c", script], stdout=-1)
    assert process.stdout is not None
    try:
        with trio.fail_after(STOP_SECONDS):
            for expected, number in zip((b"running\n", b"unwinding\n"), signals, strict=False):
                assert await read_line(process.stdout) == expected
                process.send_signal(number)
            return await process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            await process.wait()
        await process.stdout.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_cancels(number: signal.Signals) -> None:
    assert await run_script("pass", [number]) == ExitCode.INTERRUPTED
    assert await run_script("pass", [number], after_signal="DONE") == ExitCode.DONE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "unwinding",
    ["with trio.CancelScope(shield=True): await trio.sleep_forever()", "time.sleep(1000)"],
    ids=["shielded", "blocked"],
)
async def test_second_signal_ends_at_once(unwinding: str, number: signal.Signals) -> None:
    assert await run_script(unwinding, [number, number]) == -number


def test_exit_code_is_that_of_the_command() -> None:
    async def main() -> int:
        await trio.lowlevel.checkpoint()
        return 7

    assert run_interruptible(main) == 7


def test_error_comes_out_as_it_is() -> None:
    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        run_interruptible(main)


def test_only_leaf() -> None:
    leaf = ValueError()
    assert only_leaf(leaf) is leaf
    assert only_leaf(ExceptionGroup("", [ExceptionGroup("", [leaf])])) is leaf
    several = ExceptionGroup("", [leaf, KeyError()])
    assert only_leaf(several) is several


def test_port_may_be_left_out() -> None:
    assert dialled("localhost") == "localhost:8400"
    assert dialled("[::1]") == "[::1]:8400"
    assert dialled("node:1") == "node:1"
