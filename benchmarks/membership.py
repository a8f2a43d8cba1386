"""Gossip beside real `serf` agents: how fast news is known to all, and what an idle member costs.

    python -m benchmarks.membership [--sizes 3,10,30] [--rounds 20] [--talks 10] [--profile lan] [--idle-seconds 10]
    python -m benchmarks.membership --busy [--busy-seconds 30] [--nodes 3]

Each round starts a cluster of every size and of each kind, in turns, one process a member, on the loopback address.
Once all are ready and alone, all but the first are told at the same moment to join through the first. Then nothing
happens for a while. Then a random member sends a user event, and another asks all members a query, some times. In the
end one member is killed.

Both kinds are observed in the same way (tests/observed): the times are of this process's clock, when it has read from
the last member that it knows, from the agents' logs and RPC ports and from what ours print, and all queries are
answered from here. Figures are medians: of the rounds, and of all events and queries of all rounds; beside their ratio
stands what it might as well have been by chance, most of which is when a gossip round or a probe begins. As root the
clusters run in a network namespace of their own, so that all UDP packets that are counted are theirs.

With --busy: nodes under full produce load; every suspicion that one of them logs is reported, and there should be none.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import trio
from attrs import frozen

from benchmarks.common import goal, print_machine
from proglog_trio.client import open_producer
from proglog_trio.node.log_output import configure_log_output
from tests.interop.agents import free_port
from tests.observed.group import Group, group
from tests.observed.member import Kind, ObservedMember

PATIENCE_SECONDS = 180.0
HOST = "127.0.0.1"
OURS, SERF = "proglog-trio", "serf"
TIME_GOAL = 1.1
CPU_GOAL_PERCENT = 0.5
MEBIBYTE = 1024 * 1024
STARTED_AT_ONCE = 4
RESAMPLINGS = 1000
INSIDE = "PROGLOG_BENCH_INSIDE"


@frozen
class Figures:
    """What one round measured.

    Attributes:
        join_seconds: from when all were told to join until all knew all.
        event_seconds: of each user event, from when its sender was told until it was everywhere.
        query_seconds: of each query, from when its asker was told until it had all answers; infinite if one is missing.
        failure_seconds: from the death of a member until all others showed it as failed.
        cpu_percent: of a core, per idle member.
        resident_mebibytes: per idle member.
        packets_per_second: of the whole idle cluster.
    """

    join_seconds: float
    event_seconds: Sequence[float]
    query_seconds: Sequence[float]
    failure_seconds: float
    cpu_percent: float
    resident_mebibytes: float
    packets_per_second: float


def _packets_sent() -> int:
    """Return how many UDP packets have been sent in this network namespace (proc_net(5), snmp)."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Udp:")
    return int(values[names.index("OutDatagrams")])


def _cpu_seconds(members: Sequence[ObservedMember]) -> float:
    times = [psutil.Process(member.process.pid).cpu_times() for member in members]
    return sum(used.user + used.system for used in times)


async def _start(kind: str, members: Group, size: int, profile: str) -> None:
    """Start members of one kind; each is alone."""
    limiter = trio.CapacityLimiter(STARTED_AT_ONCE)

    async def start(number: int) -> None:
        name = f"m{number}"
        async with limiter:
            if kind == OURS:
                await members.ours(name, profile, host=HOST)
            else:
                await members.agent(name, profile, host=HOST, port=free_port(HOST), rpc_port=free_port(HOST))

    async with trio.open_nursery() as nursery:
        for number in range(size):
            nursery.start_soon(start, number)
    members.members.sort(key=lambda member: int(member.name[1:]))


async def _event_seconds(members: Group, sender: ObservedMember, name: str) -> float:
    began = time.perf_counter()
    await sender.send_event(name, b"payload")
    return await members.notes.until_said(Kind.EVENT, [name], len(members.members)) - began


async def _query_seconds(members: Group, asker: ObservedMember, name: str) -> float:
    notes, size = members.notes, len(members.members)
    began = time.perf_counter()
    await asker.ask(name)

    def has_answers() -> bool:
        return len(notes.answering(Kind.ANSWER, name)) == size

    await notes.until(lambda: has_answers() or bool(notes.of(Kind.QUERY_OVER, name)))
    return notes.of(Kind.ANSWER, name)[-1].at - began if has_answers() else math.inf


async def measure(kind: str, size: int, profile: str, idle_seconds: float, talks: int, seed: int) -> Figures:
    """Run one round with one kind of cluster.

    Args:
        kind: OURS or SERF.
        size: how many members.
        profile: their timing.
        idle_seconds: for how long nothing happens.
        talks: how many events and queries there are.
        seed: decides who sends and asks, and when; the same for both kinds.
    """
    rng = random.Random(seed)
    async with group() as members:
        with trio.fail_after(PATIENCE_SECONDS):
            await _start(kind, members, size, profile)
        with trio.fail_after(PATIENCE_SECONDS):
            began = time.perf_counter()
            joined = await members.join_all() - began

        await trio.sleep(2)  # what came with the joins shall not count as idle
        running = members.members
        cpu, packets, began = _cpu_seconds(running), _packets_sent(), time.perf_counter()
        await trio.sleep(idle_seconds)
        took = time.perf_counter() - began
        cpu, packets = _cpu_seconds(running) - cpu, _packets_sent() - packets
        resident = sum(psutil.Process(member.process.pid).memory_info().rss for member in running) / size

        events: list[float] = []
        queries: list[float] = []
        for number in range(talks):
            for seconds, talk in ((events, _event_seconds), (queries, _query_seconds)):
                # at any moment of a gossip round
                await trio.sleep(rng.uniform(0.2, 0.8))
                with trio.fail_after(PATIENCE_SECONDS):
                    seconds.append(await talk(members, rng.choice(running), f"{talk.__name__}-{number}"))

        victim = running[size // 2]
        began = time.perf_counter()
        victim.process.kill()
        with trio.fail_after(PATIENCE_SECONDS):
            failed = await members.notes.until_said(Kind.FAILED, [victim.name], size - 1) - began
        return Figures(joined, events, queries, failed, 100 * cpu / took / size, resident / MEBIBYTE, packets / took)


def _each(of: Callable[[Figures], float]) -> Callable[[Figures], Sequence[float]]:
    return lambda figures: [of(figures)]


ROWS: Sequence[tuple[str, str, Callable[[Figures], Sequence[float]], str]] = (
    ("joins known to all", "s", _each(lambda one: one.join_seconds), "ratio"),
    ("an event known to all", "s", lambda one: one.event_seconds, "ratio"),
    ("a query answered by all", "s", lambda one: one.query_seconds, "ratio"),
    ("a kill -9 known to all", "s", _each(lambda one: one.failure_seconds), "ratio"),
    ("CPU of an idle member", "%", _each(lambda one: one.cpu_percent), "cpu"),
    ("resident memory of a member", "MiB", _each(lambda one: one.resident_mebibytes), ""),
    ("UDP packets of all, idle", "/s", _each(lambda one: one.packets_per_second), ""),
)
"""What is printed of the rounds, its unit, where it stands, and which goal it has."""


def compare(sizes: Sequence[int], rounds: int, profile: str, idle_seconds: float, talks: int) -> bool:
    """Measure both kinds in turn, and print medians and ratios; return whether all goals are reached."""
    reached = True
    for size in sizes:
        print(f"\n{size} members, {profile} profile, median of {rounds}{'' if rounds > 1 else ' (one round)'}")
        figures: dict[str, list[Figures]] = {OURS: [], SERF: []}
        for number in range(rounds):
            for kind in (OURS, SERF) if number % 2 else (SERF, OURS):
                one = trio.run(measure, kind, size, profile, idle_seconds, talks, number)
                figures[kind].append(one)
                print(f"  {number + 1}. {kind:<13} {_in_short(one)}", file=sys.stderr, flush=True)
        print(f"{'':<40}{OURS:>14}{SERF:>10}{'ratio':>8}  by chance, 90 %")
        for what, unit, of, bound in ROWS:
            values = [[value for one in figures[kind] for value in of(one)] for kind in (OURS, SERF)]
            ours, serf = map(statistics.median, values)
            ratio = ours / serf if serf else float("nan")
            low, high = _ratio_between(*values)
            words = ""
            if bound:
                met = ratio <= TIME_GOAL if bound == "ratio" else ours <= CPU_GOAL_PERCENT
                reached &= met
                words = f"ratio of {TIME_GOAL}" if bound == "ratio" else f"{CPU_GOAL_PERCENT} %"
                words = f"   goal, at most {words}: {goal(met)}"
            row = f"{what + ', ' + unit:<40}{ours:>14.2f}{serf:>10.2f}{ratio:>8.2f}  {low:>5.2f} to {high:<5.2f}{words}"
            print(row, flush=True)
        for kind in (OURS, SERF):
            queries = [seconds for one in figures[kind] for seconds in one.query_seconds]
            complete = sum(map(math.isfinite, queries))
            print(f"queries of {kind} that all answered: {complete} of {len(queries)}")
    return reached


def _ratio_between(ours: Sequence[float], serf: Sequence[float]) -> tuple[float, float]:
    """Return between which ratios of medians chance alone would have put this one, in nine of ten times (bootstrap)."""
    rng = random.Random(0)

    def median_of_some(values: Sequence[float]) -> float:
        return statistics.median(rng.choices(values, k=len(values)))

    ratios = sorted(
        median_of_some(ours) / serf_median
        for _ in range(RESAMPLINGS)
        if 0 < (serf_median := median_of_some(serf)) < math.inf
    )
    if not ratios:
        return math.nan, math.nan
    return ratios[len(ratios) // 20], ratios[-1 - len(ratios) // 20]


def _in_short(one: Figures) -> str:
    """Return a round's figures in a line."""
    parts = (
        f"{what.split(',')[0]} {', '.join(f'{value:.2f}' for value in of(one))} {unit}" for what, unit, of, _ in ROWS
    )
    return "; ".join(parts)


# -- under load --------------------------------------------------------------------------------------------------------


@frozen
class Node:
    """A real node, ready."""

    name: str
    process: trio.Process
    rpc_address: str
    gossip_address: str
    log: Path


@asynccontextmanager
async def _node(directory: Path, name: str, start_address: str | None) -> AsyncIterator[Node]:
    log = directory / f"{name}.stderr"
    command = [
        sys.executable, "-m", "proglog_trio", "node", "--node-name", name, "--data-dir", str(directory / name),
        "--rpc-port", "0", "--bind-addr", "127.0.0.1:0", "--json", "--log-level", "debug",
    ]  # fmt: skip
    command += ["--start-join-addrs", start_address] if start_address else []
    with log.open("wb") as errors:
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=errors)
    try:
        assert process.stdout is not None
        ready = b""
        with trio.fail_after(PATIENCE_SECONDS):
            while not ready.endswith(b"\n"):
                data = await process.stdout.receive_some()
                if not data:
                    sys.exit(f"the node ended: {log.read_text()}")
                ready += data
        said = json.loads(ready)
        yield Node(name, process, said["rpc_addr"], said["gossip_addr"], log)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def busy(nodes: int, seconds: float, directory: Path) -> bool:
    """Load nodes that are members of one cluster; return whether none was suspected."""
    value = bytes(range(128))
    values = [value] * 1000
    counts: dict[str, int] = {}

    async def load(node: Node) -> None:
        async with open_producer(node.rpc_address) as producer:
            while True:
                await producer.send_batch(values)
                counts[node.name] = counts.get(node.name, 0) + len(values)

    async with AsyncExitStack() as stack:
        running: list[Node] = []
        for number in range(nodes):
            through = running[0].gossip_address if running else None
            running.append(await stack.enter_async_context(_node(directory, f"n{number}", through)))
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for node in running:
                    nursery.start_soon(load, node)
        suspicions = [
            (node.name, line)
            for node in running
            for line in node.log.read_text("utf-8", "replace").splitlines()
            if re.search(r"\bsuspects?\b", line)
        ]
        joined = [len(re.findall(r"\bjoin\b", node.log.read_text("utf-8", "replace"))) for node in running]
    print(f"{nodes} nodes, {seconds:g} s of full load from this one process, records of {len(value)} bytes")
    for name, count in sorted(counts.items()):
        print(f"  {name}: {count / seconds:,.0f} records/s")
    print(f"  joins logged by each: {joined}")
    for name, line in suspicions[:20]:
        print(f"  {name} logged: {line[:200]}")
    print(f"suspicions: {len(suspicions)}   goal, none: {goal(not suspicions)}")
    return not suspicions


# -- the command -------------------------------------------------------------------------------------------------------


def _enter_own_network() -> None:
    """Begin anew in a network namespace of its own, where that can be had."""
    if os.environ.get(INSIDE) or os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        return
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        return
    again = [sys.executable, "-m", "benchmarks.membership", *sys.argv[1:]]
    script = 'ip link set lo up && exec "$@"'
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", script, "sh", *again])  # noqa: S606 - that is the point


def _sizes(text: str) -> list[int]:
    sizes = [int(part) for part in text.split(",")]
    if any(size < 2 for size in sizes):
        raise argparse.ArgumentTypeError("a cluster has at least 2 members")
    return sizes


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=_sizes, default=[3, 10, 30], help="members of the clusters, as 3,10,30")
    parser.add_argument("--rounds", type=int, default=20, help="how often everything is done")
    parser.add_argument("--talks", type=int, default=10, help="how many events and queries a round has")
    parser.add_argument("--profile", choices=["lan", "local", "wan"], default="lan")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long idle members are watched")
    parser.add_argument("--busy", action="store_true", help="watch nodes under load instead")
    parser.add_argument("--busy-seconds", type=float, default=30.0, help="how long they are loaded")
    parser.add_argument("--nodes", type=int, default=3, help="how many are loaded")
    arguments = parser.parse_args()
    _enter_own_network()
    configure_log_output("auto", "warning")
    print_machine()
    if not os.environ.get(INSIDE):
        print("not in a network namespace of its own: UDP packets are those of the whole machine")
    if arguments.busy:
        with TemporaryDirectory() as directory:
            met = trio.run(partial(busy, arguments.nodes, arguments.busy_seconds, Path(directory)))
    elif shutil.which("serf") is None:
        sys.exit("serf is not installed; on Debian: apt-get install serf")
    else:
        met = compare(arguments.sizes, arguments.rounds, arguments.profile, arguments.idle_seconds, arguments.talks)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
