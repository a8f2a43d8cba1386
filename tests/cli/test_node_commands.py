import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
import trio

from proglog_trio.cli.contexts.addresses import dialled
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import only_leaf, run_interruptible
from tests.node_process import STOP_SECONDS, read_line

SCRIPT = """
import time, trio
from proglog_trio.cli.contexts.addresses import dialled
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.node_commands import run_interruptible

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
    steps = list(zip((b"running\n", b"unwinding\n"), signals, strict=False))
    return await run_and_signal([sys.executable, "-c", script], steps)


async def run_and_signal(
    command: list[str], steps: list[tuple[bytes, signal.Signals]], *, to_child: bool = False
) -> int:
    """Run a command, send it (or its child) a signal after each of these lines, and return its exit code."""
    process = await trio.lowlevel.open_process(command, stdout=-1)
    assert process.stdout is not None
    try:
        with trio.fail_after(STOP_SECONDS):
            for expected, number in steps:
                assert await read_line(process.stdout) == expected
                children = psutil.Process(process.pid).children() if to_child else []
                os.kill(children[0].pid if to_child else process.pid, number)
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


def why_no_pid_namespace() -> str | None:
    """Return why no process can be the first of a PID namespace here; None: one can."""
    if shutil.which("unshare") is None:
        return "PID namespaces need unshare (Debian: util-linux)"
    attempt = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, text=True, check=False)
    return f"PID namespaces are not allowed here: {attempt.stderr.strip()}" if attempt.returncode else None


@pytest.fixture(scope="module")
def first_process() -> list[str]:
    """What runs a command as the first process of a PID namespace, as a container does."""
    if reason := why_no_pid_namespace():
        pytest.skip(reason)
    return ["unshare", "--pid", "--fork", "--kill-child"]


@pytest.mark.parametrize(
    "unwinding",
    ["with trio.CancelScope(shield=True): await trio.sleep_forever()", "time.sleep(1000)"],
    ids=["shielded", "blocked"],
)
async def test_second_signal_ends_the_first_process_of_a_container(unwinding: str, first_process: list[str]) -> None:
    script = SCRIPT.format(unwinding=unwinding, after_signal="DONE")
    steps = [(b"running\n", signal.SIGTERM), (b"unwinding\n", signal.SIGTERM)]
    code = await run_and_signal([*first_process, sys.executable, "-c", script], steps, to_child=True)
    assert code == 128 + signal.SIGTERM


WAITING = """
import signal, time
{before}
from proglog_trio.cli.default_signals import end_as_by_default
end_as_by_default()
print("waiting", flush=True)
time.sleep({seconds})
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
async def test_signal_ends_the_first_process_of_a_container(number: signal.Signals, first_process: list[str]) -> None:
    """Also before a command has begun, and where it has no use for signals."""
    # whoever runs these tests may have it ignored
    script = WAITING.format(before=f"signal.signal({number}, signal.SIG_DFL)", seconds=1000)
    code = await run_and_signal([*first_process, sys.executable, "-c", script], [(b"waiting\n", number)], to_child=True)
    assert code == 128 + number


async def test_signal_that_is_to_be_ignored_stays_so(first_process: list[str]) -> None:
    """As `nohup` wants it."""
    script = WAITING.format(before="signal.signal(signal.SIGHUP, signal.SIG_IGN)", seconds=0.2)
    steps = [(b"waiting\n", signal.SIGHUP)]
    assert await run_and_signal([*first_process, sys.executable, "-c", script], steps, to_child=True) == 0


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
