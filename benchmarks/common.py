"""What the benchmarks share: processes that are ended, free ports, and figures that are printed."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

START_SECONDS = 30.0


@frozen
class Rate:
    """What one run moved.

    Attributes:
        records: how many.
        seconds: in how much time.
        record_bytes: of one record's value.
    """

    records: int
    seconds: float
    record_bytes: int

    @property
    def per_second(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        """Megabytes of values a second."""
        return self.records * self.record_bytes / self.seconds / 1e6


def median_rate(rates: Sequence[Rate]) -> Rate:
    """Return the run with the median rate (the lower of two)."""
    return sorted(rates, key=lambda rate: rate.per_second)[(len(rates) - 1) // 2]


def spread(rates: Sequence[Rate]) -> str:
    """Return the lowest and highest rate in words."""
    values = [rate.per_second for rate in rates]
    return f"{min(values):,.0f} to {max(values):,.0f}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str], ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the time of a `with`, from when it is ready on."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended with {process.returncode}")
            if time.monotonic() > deadline:
                sys.exit(f"{command[0]} was not ready after {START_SECONDS:.0f} s")
            time.sleep(0.02)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def accepts(port: int) -> bool:
    """Tell whether something listens on a port of the loopback address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def scratch_directory(parent: Path | None) -> Iterator[Path]:
    """Make a directory for the time of a `with`."""
    path = Path(tempfile.mkdtemp(prefix="proglog-bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def fdatasync_seconds(directory: Path, size: int, rounds: int) -> list[float]:
    """Return how long appending size bytes and fdatasync take, each time."""
    data = os.urandom(size)
    path = directory / "fdatasync"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(data)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    path.unlink()
    return taken


def print_machine() -> None:
    """Print what the figures were measured on."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")


def goal(reached: bool) -> str:
    """Return how a goal's line ends."""
    return "reached" if reached else "NOT REACHED"
