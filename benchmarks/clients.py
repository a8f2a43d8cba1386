"""The client under asyncio, Trio, uvloop and in threads, against the Trio client of before and against other libraries.

Throughput, in pairs that alternate: one side is the client of another commit, by default the last one that ran on Trio
alone, the other a client of this tree. Each measurement has a new node, this tree's on both sides, since the first who
writes to a node has the advantage; and each side is a new process with the same records. What is printed is the median
of the pairs' ratios (this tree's over the other's: above 1 is faster) with an interval that holds the true median with
at least 95 % probability, and the same for records per second of the client's own processor time, which other work on
the machine changes less.

Latency of single records under asyncio, each awaited, against redis-py (Streams) and nats-py (JetStream), by one task
and by 100 in a TaskGroup, in turns; every server syncs before it answers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.against import interval
from benchmarks.common import accepts, free_port, goal, print_machine, running, scratch_directory

TREE = Path(__file__).parent.parent
BASE_COMMIT = "05fd544"
THROUGHPUT = TREE / "benchmarks" / "sides" / "client_throughput.py"
LATENCY = TREE / "benchmarks" / "sides" / "client_latency.py"
WORKS = ("batches", "records")
TASKS = (1, 100)
LIBRARIES = ("proglog-trio", "redis-py", "nats-py")
# Of each kind of client and each work, what is measured, and the least ratio; None: for information.
GOALS: dict[str, dict[str, dict[str, float | None]]] = {
    "asyncio": {
        "batches": {"send_batch": 0.95, "batches out": 0.95},
        "records": {"send one by one": None, "records out": None},
    },
    "trio": {
        "batches": {"send_batch": None, "batches out": None},
        "records": {"send one by one": 0.95, "records out": None},
    },
    "sync": {
        "batches": {"send_batch": 0.7, "batches out": None},
        "records": {"send one by one": None, "records out": None},
    },
    "uvloop": {
        "batches": {"send_batch": None, "batches out": None},
        "records": {"send one by one": None, "records out": None},
    },
}


@frozen
class Settings:
    """What holds for every measurement.

    Attributes:
        pairs: how many there are of each kind.
        seconds: of each measurement.
        size: of a record's value, in bytes.
        directory: where servers write; each measurement's part is removed after it.
    """

    pairs: int
    seconds: float
    size: int
    directory: Path


@contextmanager
def new_node(directory: Path) -> Iterator[int]:
    """Run a new node of this tree; yields its port."""
    port = free_port()
    options = ["--data-dir", str(directory), "--bind-addr", "127.0.0.1:0", "--rpc-port", str(port)]
    command = [sys.executable, "-m", "proglog_trio", "node", "--log-level", "warning", *options]
    with running(command, lambda: accepts(port)):
        yield port


def _output(command: Sequence[str | Path], tree: Path) -> dict[str, Any]:
    """Run a measuring process with the packages of a tree, and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-P", *map(str, command)], env=environment, cwd=tree, stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        sys.exit(f"a measuring process ended with {done.returncode}: {' '.join(map(str, command))}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


# -- throughput --------------------------------------------------------------------------------------------------------


@frozen
class Speed:
    """How fast one side was at something: records a second, and for each second of its own processor time."""

    per_second: float
    per_cpu_second: float


def measure_side(settings: Settings, tree: Path, kind: str, work: str) -> dict[str, Speed]:
    """Measure one side once."""
    with scratch_directory(settings.directory) as directory, new_node(directory / "node") as port:
        options = ["--size", str(settings.size), "--seconds", str(settings.seconds)]
        figures = _output([THROUGHPUT, kind, work, f"127.0.0.1:{port}", *options], tree)
    return {name: Speed(count / seconds, count / cpu) for name, (count, seconds, cpu) in figures.items()}


def compare(settings: Settings, base: Path, kind: str, work: str) -> bool:
    """Print the ratios of one kind of client at one work; return whether the goals are reached."""
    pairs: list[tuple[dict[str, Speed], dict[str, Speed]]] = []
    for number in range(settings.pairs):
        sides = [(TREE, kind), (base, "trio")]
        if number % 2:
            sides.reverse()
        found = {tree: measure_side(settings, tree, name, work) for tree, name in sides}
        pairs.append((found[TREE], found[base]))
    reached = True
    for name, least in GOALS[kind][work].items():
        mine, other = zip(*((mine[name], other[name]) for mine, other in pairs), strict=True)
        ratios = [each.per_second / before.per_second for each, before in zip(mine, other, strict=True)]
        by_cpu = [each.per_cpu_second / before.per_cpu_second for each, before in zip(mine, other, strict=True)]
        is_enough = least is None or statistics.median(ratios) >= least
        reached &= is_enough
        rates = "".join(f"{statistics.median(each.per_second for each in side):>12,.0f}" for side in (mine, other))
        wanted = "" if least is None else f"  goal {least:g}: {goal(is_enough)}"
        print(f"  {kind + ', ' + name:<26}{rates}  {_ratio(ratios)}  {_ratio(by_cpu)}{wanted}", flush=True)
    return reached


def _ratio(ratios: Sequence[float]) -> str:
    low, high = interval(ratios)
    return f"{statistics.median(ratios):6.3f} ({low:.3f} to {high:.3f})"


@contextmanager
def checkout(commit: str, parent: Path) -> Iterator[Path]:
    """Make a checkout of a commit of this repository, for the time of a `with`."""
    with scratch_directory(parent) as directory:
        archive = subprocess.run(["git", "-C", str(TREE), "archive", commit], stdout=subprocess.PIPE, check=False)
        if archive.returncode:
            sys.exit(f"there is no commit {commit} here; fetch it, or name the directory of a checkout")
        subprocess.run(["tar", "-x", "-C", str(directory)], input=archive.stdout, check=True)
        yield directory


# -- latency -----------------------------------------------------------------------------------------------------------


def _server(library: str, directory: Path) -> AbstractContextManager[int]:
    from benchmarks import peers

    servers = {"proglog-trio": new_node, "redis-py": peers.redis_server, "nats-py": peers.nats_server}
    return servers[library](directory / "server")


def measure_latency(settings: Settings, library: str, tasks: int) -> dict[str, float]:
    """Measure one library once: p50 and p99 in seconds, and records a second."""
    with scratch_directory(settings.directory) as directory, _server(library, directory) as port:
        options = ["--size", str(settings.size), "--tasks", str(tasks), "--seconds", str(settings.seconds)]
        return _output([LATENCY, library, str(port), *options], TREE)


def compare_latency(settings: Settings) -> None:
    """Print the three libraries side by side."""
    for tasks in TASKS:
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(settings.pairs):
            turn = number % len(LIBRARIES)
            order = (*LIBRARIES[turn:], *LIBRARIES[:turn])
            rounds.append({library: measure_latency(settings, library, tasks) for library in order})
        how = "one by one" if tasks == 1 else f"by {tasks} tasks of a TaskGroup"
        print(
            f"\nsingle records of {settings.size} bytes under asyncio, awaited {how}; medians of {len(rounds)} rounds"
        )
        print(f"  {'':<14}{'p50':>10}{'p99':>12}{'records/s':>14}  rate of proglog-trio over it")
        for library in LIBRARIES:
            middle = {
                name: statistics.median(each[library][name] for each in rounds) for name in ("p50", "p99", "rate")
            }
            ratios = [each["proglog-trio"]["rate"] / each[library]["rate"] for each in rounds]
            over = "" if library == "proglog-trio" else f"  {_ratio(ratios)}"
            print(
                f"  {library:<14}{middle['p50'] * 1e3:>7.2f} ms{middle['p99'] * 1e3:>9.2f} ms{middle['rate']:>14,.0f}"
                f"{over}",
                flush=True,
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "base", type=Path, nargs="?", help=f"another checkout's directory; default: one of {BASE_COMMIT}"
    )
    parser.add_argument("--commit", default=BASE_COMMIT, help="the commit to compare with, if no directory is named")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--size", type=int, default=128, help="of the records' values, in bytes")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; default: the temporary directory")
    parser.add_argument("--only", choices=[*GOALS, "latency"], action="append", help="default: all")
    parser.add_argument("--work", choices=WORKS, action="append", help="default: both")
    arguments = parser.parse_args()
    chosen = arguments.only or [*GOALS, "latency"]
    if arguments.base is not None and not (arguments.base / "proglog_trio").is_dir():
        parser.error(f"{arguments.base} is no checkout: it has no proglog_trio")
    print_machine()
    reached = True
    with ExitStack() as stack:
        directory = stack.enter_context(scratch_directory(arguments.directory))
        settings = Settings(arguments.pairs, arguments.seconds, arguments.size, directory)
        if kinds := [kind for kind in GOALS if kind in chosen]:
            base = arguments.base or stack.enter_context(checkout(arguments.commit, directory))
            print(
                f"\nrecords of {settings.size} bytes, {settings.pairs} pairs: records a second, this client's and the"
            )
            print("other's; the ratio, and the ratio by the client's processor time, each with its interval of 95 %")
            for kind in kinds:
                for work in arguments.work or WORKS:
                    reached &= compare(settings, base.resolve(), kind, work)
        if "latency" in chosen:
            compare_latency(settings)
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
