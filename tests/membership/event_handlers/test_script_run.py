import os
import signal
import time
from pathlib import Path

import pytest
import trio

from proglog_trio.membership.event_handlers.script_run import MAX_OUTPUT_BYTES, Output, ScriptFailed, run_script

LONG = 60.0


async def test_a_script_reads_its_input_and_environment() -> None:
    output = await run_script(
        'echo "$SERF_EVENT"; cat; echo error >&2', {**os.environ, "SERF_EVENT": "user"}, b"payload\n", LONG
    )
    assert output == Output(b"user\npayload\nerror\n", 19)


async def test_a_script_need_not_read_its_input() -> None:
    assert (await run_script("exec <&-; echo done", os.environ, b"x" * 1_000_000, LONG)).end == b"done\n"


async def test_of_much_output_the_end_is_kept() -> None:
    output = await run_script("head -c 300000 /dev/zero | tr '\\0' a; printf end", os.environ, b"", LONG)
    assert output.total == 300_003
    assert output.end == b"a" * (MAX_OUTPUT_BYTES - 3) + b"end"


async def test_a_failing_script_says_what_it_wrote() -> None:
    with pytest.raises(ScriptFailed, match="status 3") as caught:
        await run_script("echo why; exit 3", os.environ, b"", LONG)
    assert caught.value.output == b"why\n"


async def test_a_script_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = f"trap '' TERM; sh -c 'echo $$ > {child}.new; mv {child}.new {child}; exec sleep 1000' & wait; sleep 1000"
    with pytest.raises(ScriptFailed, match="killed"):
        await run_script(script, os.environ, b"", 2.0)
    assert_gone(int(child.read_text()))


async def test_what_is_left_in_the_background_with_the_output_is_killed_in_time(tmp_path: Path) -> None:
    child = tmp_path / "child"
    with pytest.raises(ScriptFailed, match="killed"):
        await run_script(f"sleep 1000 & echo $! > {child}", os.environ, b"", 2.0)
    assert_gone(int(child.read_text()))


async def test_a_daemon_that_let_go_of_the_output_lives_on(tmp_path: Path) -> None:
    child = tmp_path / "child"
    await run_script(f"sleep 1000 >/dev/null 2>&1 & echo $! > {child}", os.environ, b"", LONG)
    process = int(child.read_text())
    os.kill(process, 0)
    os.kill(process, signal.SIGKILL)


async def test_a_script_that_became_another_users_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_group: int, _signal: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refuse)
    with pytest.raises(ScriptFailed, match="cannot be killed, and took more than 1 s") as caught:
        await run_script("echo so far; exec sleep 2", os.environ, b"", 1.0)
    assert caught.value.output == b"so far\n"


async def test_a_script_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    child = tmp_path / "child"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            run_script, f"echo $$ > {child}.new; mv {child}.new {child}; sleep 1000", os.environ, b"", LONG
        )
        while not child.exists():  # noqa: ASYNC110 - the script makes it
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert_gone(int(child.read_text()))


async def test_what_cannot_be_run_is_no_surprise() -> None:
    with pytest.raises(ScriptFailed, match="cannot be run"):
        await run_script("x" * 300_000, os.environ, b"", LONG)


def assert_gone(process: int) -> None:
    """Fail if a process lives on; whoever has it in place of its parent may be late to look at it."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {process} lives on")
