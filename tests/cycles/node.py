"""The node that clients come to and leave: stopped, killed and started again, and asked what it holds."""

import contextlib
import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import anyio
import psutil
from attrs import define, field

from tests.node_process import clean_environment, node_command

READY_SECONDS = 60.0
HELD = (
    "proglog_server_connections_open",
    "proglog_server_requests_open",
    "proglog_service_consumers",
)
"""What must be 0 when no client is there."""


@define(eq=False)
class CycledNode:
    """A node process on ports that stay the same.

    Attributes:
        directory: where it keeps its data and its output.
        port: where it takes RPCs.
        metrics_port: where it tells its figures.
        starts: how often it was started.
    """

    directory: Path
    port: int
    metrics_port: int
    starts: int = 0
    _process: psutil.Popen = field(init=False)

    @classmethod
    @contextlib.contextmanager
    def running(cls, directory: Path) -> Iterator[Self]:
        """Make a node that is not started yet; it is ended with the block, in whatever state it is."""
        node = cls(directory, _free_port(), _free_port())
        try:
            yield node
        finally:
            if node.starts:
                node.kill()

    @property
    def address(self) -> str:
        """Where it takes RPCs, as host:port."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        self.starts += 1
        out = self.directory / f"ready-{self.starts}"
        options = ["--metrics-addr", f"127.0.0.1:{self.metrics_port}", "--log-level", "warning"]
        options += ["--segment-bytes", "16MiB", "--retention-bytes", "128MiB"]
        with out.open("wb") as ready, (self.directory / "stderr").open("ab") as errors:
            self._process = psutil.Popen(
                node_command(self.directory / "data", *options, rpc_port=self.port),
                stdin=subprocess.DEVNULL,
                stdout=ready,
                stderr=errors,
                env=clean_environment(),
            )
        with anyio.move_on_after(READY_SECONDS):
            while not out.read_bytes().endswith(b"\n"):
                self.check_runs()
                await anyio.sleep(0.01)
            assert json.loads(out.read_bytes())["rpc_addr"] == self.address
            return
        raise AssertionError(f"the node was not ready after {READY_SECONDS:g} s")

    def check_runs(self) -> None:
        """Fail if it has ended by itself."""
        code = self._process.poll()
        if code is not None:
            logged = (self.directory / "stderr").read_text("utf-8")
            raise AssertionError(f"the node ended by itself with {code}:\n{logged[-4000:]}")

    def pause(self) -> None:
        """Stop it, until `resume`: its kernel goes on accepting connections and bytes."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def resident_mebibytes(self) -> float:
        """Return how much memory it has resident."""
        resident: int = self._process.memory_info().rss
        return resident / 2**20

    def descriptors(self) -> int:
        """Return how many it has open, its log's files left out."""
        data = str(self.directory / "data")
        count = 0
        for descriptor in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += not str(descriptor.readlink()).startswith(data)
        return count

    def held(self) -> dict[str, float]:
        """Return what it says that it holds for clients, and its unforeseen errors, those that are not 0."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        figures: dict[str, float] = {}
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name in HELD or name.startswith("proglog_internal_errors_total"):
                figures[name] = float(value)
        missing = set(HELD) - set(figures)
        assert not missing, f"the node does not tell {missing}"
        return {name: value for name, value in figures.items() if value}

    async def left_over(self, descriptors: int, seconds: float) -> dict[str, Any]:
        """Return what it holds although no client is there, when it has had so long to notice; nothing, if all is well.

        Args:
            descriptors: how many it had before clients came.
            seconds: how long it may take to notice.
        """
        left: dict[str, Any] = {}
        with anyio.move_on_after(seconds):
            while left := self._left_over(descriptors):
                self.check_runs()
                await anyio.sleep(0.02)
        return left

    def _left_over(self, descriptors: int) -> dict[str, Any]:
        # Before it is asked: the connection on which it tells is one of them.
        now = self.descriptors()
        left: dict[str, Any] = dict(self.held())
        if now > descriptors:
            left["descriptors"] = f"{now} instead of {descriptors}"
        return left


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
