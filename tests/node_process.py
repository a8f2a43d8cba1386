"""Real node processes for tests: started, waited for by what they say, and always ended."""

import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define

# generous bounds for a machine that is busy with other tests; nothing waits for them to pass
READY_SECONDS = 60
STOP_SECONDS = 30


@define
class NodeProcess:
    """A node that said it is ready."""

    process: trio.Process
    ready: dict[str, Any]
    stderr_path: Path

    @property
    def address(self) -> str:
        """Where the node takes RPCs, as host:port."""
        address = self.ready["rpc_addr"]
        assert isinstance(address, str)
        return address

    @property
    def gossip(self) -> str:
        """Where the node gossips, as host:port."""
        address = self.ready["gossip_addr"]
        assert isinstance(address, str)
        return address

    def logged(self) -> str:
        """All that the node wrote to standard error."""
        return self.stderr_path.read_text("utf-8")

    def check_runs(self) -> None:
        """Fail if it has ended by itself."""
        code = self.process.poll()
        assert code is None, f"the node ended by itself with {code}:\n{self.logged()[-4000:]}"

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would; fails if it has ended by itself before."""
        self.check_runs()
        self.process.send_signal(signal.SIGKILL)

    async def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to stop and return its exit code; fails if it has ended by itself before."""
        self.check_runs()
        self.process.send_signal(with_signal)
        with trio.fail_after(STOP_SECONDS):
            return await self.process.wait()


def node_command(data_dir: Path, *arguments: str, rpc_port: int = 0) -> list[str]:
    """The command line of a node, on a free port unless one is given, that says in JSON when it is ready."""
    options = ["--data-dir", str(data_dir), "--rpc-port", str(rpc_port), "--json", *arguments]
    if "--bind-addr" not in arguments:
        options += ["--bind-addr", "127.0.0.1:0"]
    return [sys.executable, "-m", "proglog_trio", "node", *options]


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without options for nodes, but one: how much is free here is no business of tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROGLOG_")}
    return {**kept, "PROGLOG_DISK_RESERVE": "0", **variables}


def allow_small_files_only() -> None:
    """Make writes beyond 256 KiB of a file fail (EFBIG), as a full disk would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))


async def read_line(stream: trio.abc.ReceiveStream) -> bytes:
    """Read up to a line's end, or to the end of the stream."""
    line = bytearray()
    while not line.endswith(b"\n"):
        data = await stream.receive_some(1)
        if not data:
            break
        line += data
    return bytes(line)


@asynccontextmanager
async def node_process(
    data_dir: Path,
    *arguments: str,
    rpc_port: int = 0,
    preexec: Callable[[], None] | None = None,
    **variables: str,
) -> AsyncIterator[NodeProcess]:
    """Start a node, wait until it is ready, and end it at the block's end if it still runs.

    ``preexec`` is called in the new process before it becomes a node. Fails with what the node wrote if it ends before
    it is ready.
    """
    stderr_path = data_dir.parent / f"{data_dir.name}.stderr"
    with stderr_path.open("ab") as stderr:
        process = await trio.lowlevel.open_process(
            node_command(data_dir, *arguments, rpc_port=rpc_port),
            stdin=None,
            stdout=-1,
            stderr=stderr,
            env=clean_environment(**variables),
            preexec_fn=preexec,
        )
    try:
        assert process.stdout is not None
        with trio.fail_after(READY_SECONDS):
            line = await read_line(process.stdout)
        if not line:
            raise AssertionError(f"the node ended with {await process.wait()}:\n{stderr_path.read_text('utf-8')}")
        yield NodeProcess(process, json.loads(line), stderr_path)
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True), trio.fail_after(STOP_SECONDS):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def run_command(*arguments: str, stdin: bytes = b"", **variables: str) -> "tuple[int, bytes, str]":
    """Run one command of ours to its end; return its exit code, standard output and standard error."""
    with trio.fail_after(READY_SECONDS):
        done = await trio.run_process(
            [sys.executable, "-m", "proglog_trio", *arguments],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=clean_environment(**variables),
        )
    return done.returncode, done.stdout, done.stderr.decode()
