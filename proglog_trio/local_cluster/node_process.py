"""One node of a local cluster, as a process of its own.

The process has a session of its own, so that a terminal's Ctrl-C reaches the cluster's command alone, which then stops
all nodes in order. Its standard input is a pipe whose other end the command holds: when the command is gone, whatever
ended it (`kill -9` included), the kernel closes that end and the node stops (``--end-with-stdin``). Descriptors are
closed in every new process, so that no node holds another's pipe open. (A signal at a parent's death,
PR_SET_PDEATHSIG, would not do: it comes at the death of the *thread* that started the process.)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import BinaryIO

import trio
from attrs import define, frozen

from proglog_trio.address import Address
from proglog_trio.errors import ProglogError
from proglog_trio.local_cluster.events import Event, NodeEnded, NodeKilled, ending, shown_path
from proglog_trio.local_cluster.plan import NOT_FROM_ENVIRONMENT, NodePlan
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
"""Twice a node's own bounds: 2 s to leave its cluster (plan.py), 5 s to end what is under way."""
_LONGEST_LINE = 65536
_ERROR_PREFIX = b"proglog-trio: "


class NodeNotStarted(ProglogError):
    """A node has ended before it was ready, or is not ready after a long time.

    Attributes:
        exit_code: the node's; negative for a signal; None: it has not ended.
    """

    def __init__(self, message: str, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@frozen
class RunningNode:
    """What a node said when it was ready."""

    rpc_address: Address
    gossip_address: Address
    pid: int


@define(eq=False)
class NodeProcess:
    """A node.

    Attributes:
        plan: what it is to be.
        options: the keys of its configuration file.
        tell: is told how it goes.
        stop_seconds: how long it may take to stop before it is killed.
        running: what it said when it was ready; None before that.
        exit_code: how it ended, as `subprocess` has it; None: it has not.
    """

    plan: NodePlan
    options: Collection[str]
    tell: Callable[[Event], Awaitable[None]]
    stop_seconds: float = STOP_SECONDS
    running: RunningNode | None = None
    exit_code: int | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run it until it ends; cancelled, end it: SIGTERM, and SIGKILL after stop_seconds.

        Args:
            task_status: is started when the node is ready.

        Raises:
            NodeNotStarted: it is not, and will not be.
            OSError: its log file cannot be written.
        """
        with self.plan.log_file.open("ab") as log_file:
            begin = log_file.tell()
            async with trio.open_nursery() as nursery:
                process: trio.Process = await nursery.start(partial(self._run_process, log_file))
                try:
                    await self._wait_ready(process, begin)
                    task_status.started()
                    exit_code = await process.wait()
                finally:
                    await _close_pipes(process)
        await self.tell(NodeEnded(self.plan, exit_code))
        self.exit_code = exit_code  # not before it is told: the last one's end is the end of all

    def ready(self) -> RunningNode:
        """Return what it said when it was ready; RuntimeError: it was not yet."""
        if self.running is None:
            raise RuntimeError(f"{self.plan.name} is not ready")
        return self.running

    async def _run_process(self, log_file: BinaryIO, *, task_status: trio.TaskStatus[trio.Process]) -> None:
        plan = self.plan
        await trio.run_process(
            [
                *(sys.executable, "-m", "proglog_trio", "node", "--config-file", plan.config_file),
                *("--json", "--end-with-stdin"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            check=False,
            start_new_session=True,
            env=node_environment(os.environ, self.options),
            deliver_cancel=self._stop,
            task_status=task_status,
        )

    async def _stop(self, process: trio.Process) -> None:
        process.terminate()
        await trio.sleep(self.stop_seconds)
        process.kill()  # first: it may not be possible to tell
        await self.tell(NodeKilled(self.plan.name, self.stop_seconds))

    async def _wait_ready(self, process: trio.Process, begin: int) -> None:
        line = b""
        with trio.move_on_after(READY_SECONDS) as waiting:
            line = await _read_line(process)
            if not line.endswith(b"\n"):
                await process.wait()
        if waiting.cancelled_caught:
            raise NodeNotStarted(
                f"{self.plan.name} is not ready after {READY_SECONDS:g} s; see {shown_path(self.plan.log_file)}", None
            )
        if not line.endswith(b"\n"):
            assert process.returncode is not None  # noqa: S101 (it was waited for)
            why = self._last_error(begin) or ending(process.returncode)
            raise NodeNotStarted(
                f"{self.plan.name} did not start: {why} (see {shown_path(self.plan.log_file)})", process.returncode
            )
        said = json.loads(line)
        self.running = RunningNode(Address.parse(said["rpc_addr"]), Address.parse(said["gossip_addr"]), process.pid)

    def _last_error(self, begin: int) -> str | None:
        """Return the one line with which a command of ours says what went wrong."""
        with self.plan.log_file.open("rb") as file:
            file.seek(begin)
            errors = [line for line in file.read().splitlines() if line.startswith(_ERROR_PREFIX)]
        return errors[-1].removeprefix(_ERROR_PREFIX).decode("utf-8", "replace") if errors else None


async def _read_line(process: trio.Process) -> bytes:
    """Read up to a line's end, or to the end."""
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
        data = await process.stdout.receive_some(_LONGEST_LINE)
        if not data:
            break
        line += data
    return bytes(line)


async def _close_pipes(process: trio.Process) -> None:
    """Close this side of the pipes, when the process is told to stop or has ended: both tell it to."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with trio.CancelScope(shield=True):
                await pipe.aclose()


def node_environment(environ: Mapping[str, str], options: Collection[str]) -> dict[str, str]:
    """Return the environment of a node: without what would be put in place of what its file says, or make it secure.

    Args:
        environ: this process's.
        options: the keys of the node's configuration file.
    """
    dropped = (*options, *NOT_FROM_ENVIRONMENT, "config-file")
    ours = {ENVIRONMENT_PREFIX + option.replace("-", "_").upper() for option in dropped}
    return {name: content for name, content in environ.items() if name not in ours}
