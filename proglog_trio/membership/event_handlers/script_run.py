"""Running a script for an event: with its input, for a time at most, and with the end of its output kept."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress

import trio
from attrs import frozen

MAX_OUTPUT_BYTES = 8 * 1024
"""That is kept of what a script writes: the end of it, as agents do."""
KILLED_SECONDS = 5.0
"""For a script that was killed to be gone."""


class ScriptFailed(Exception):
    """A script that could not be run, failed, or took too long.

    Attributes:
        output: the end of what it wrote.
    """

    def __init__(self, message: str, output: bytes = b"") -> None:
        super().__init__(message)
        self.output = output


@frozen
class Output:
    """What a script wrote.

    Attributes:
        end: the last bytes of it.
        total: how many bytes there were.
    """

    end: bytes
    total: int


async def run_script(script: str, environment: Mapping[str, str], data: bytes, seconds: float) -> Output:
    """Run a script in a shell, and return what it wrote to standard output and standard error.

    It is over when it has ended and nobody holds its output any more, as a process in the background would. When it is
    not in time, or when this is cancelled, it is killed, with all that it started in its group.

    Args:
        script: for `/bin/sh -c`.
        environment: its variables.
        data: its standard input.
        seconds: how long it may take.

    Raises:
        ScriptFailed: it cannot be run, its status is not 0, or it was killed.
    """
    try:
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise ScriptFailed(f"it cannot be run: {error}") from None
    kept = bytearray()
    total = 0

    async def read() -> None:
        nonlocal total
        if process.stdout is not None:
            async for some in process.stdout:
                total += len(some)
                kept.extend(some)
                del kept[:-MAX_OUTPUT_BYTES]

    is_over = False
    try:
        with trio.move_on_after(seconds) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(_give, process, data)
                await process.wait()
            is_over = True
    finally:
        is_ours = await _end(process, kill=not is_over)
    if scope.cancelled_caught:
        what = "it was killed, since it took" if is_ours else "it cannot be killed, and took"
        raise ScriptFailed(f"{what} more than {seconds:g} s", bytes(kept))
    if process.returncode:
        raise ScriptFailed(f"it ended with status {process.returncode}", bytes(kept))
    return Output(bytes(kept), total)


async def _give(process: trio.Process, data: bytes) -> None:
    """Give a script its input; one that does not read it is none the worse."""
    if process.stdin is not None:
        with suppress(trio.BrokenResourceError):
            await process.stdin.send_all(data)
        await process.stdin.aclose()


async def _end(process: trio.Process, *, kill: bool) -> bool:
    """Close what leads to a script; kill: and end its group, which may have outlived it, and wait for it.

    Returns:
        Whether that is allowed: it may have become another user's, as by sudo, and is left alone then.
    """
    is_ours = True
    with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED_SECONDS):
        if kill:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:
                is_ours = False
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()
        if kill:
            # Last: it may be left alone, and take as long as it likes.
            await process.wait()
    return is_ours
