"""Gossip beside real `serf` agents: how fast joins and deaths are known to all, and what an idle member costs.

    python -m benchmarks.membership [--sizes 3,10,30] [--rounds 3] [--profile local] [--idle-seconds 10]
    python -m benchmarks.membership --busy [--busy-seconds 30] [--nodes 3]

Each round starts a cluster of every size and of each kind, one process a member, on the loopback address: all but the
first are told at the same moment to join through the first, then nothing happens for a while, then one is killed. A
time ends when the last member has said (agents: has logged) that it knows. Figures are medians over the rounds. As root
the clusters run in a network namespace of their own, so that all UDP packets that are counted are theirs.

With --busy: nodes under full produce load; every suspicion that one of them logs is reported, and there should be none.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import psutil
import trio
from attrs import define, field, frozen

from benchmarks.common import goal, print_machine
from proglog_trio.client import open_producer
from proglog_trio.node.log_output import configure_log_output

PATIENCE_SECONDS = 180.0
TIME_GOAL = 1.1
CPU_GOAL_PERCENT = 1.5
MEBIBYTE = 1024 * 1024
INSIDE = "PROGLOG_BENCH_INSIDE"
_LOGGED = re.compile(r"(?:serf: EventMember(Join|Failed|Leave)|agent: Received event: (user)-event): (\S+)")


@define(eq=False)
class Member:
    """One process.

    Attributes:
        knows: what it said of each member last, and when: "join" or "failed", and seconds.
        news: set and replaced at each line.
    """

    name: str
    process: trio.Process
    address: str = ""
    rpc: int = 0
    knows: dict[str, tuple[str, float]] = field(factory=dict)
    news: trio.Event = field(factory=trio.Event)

    def note(self, kind: str, names: Sequence[str]) -> None:
        """Note what it says."""
        now = time.perf_counter()
        for name in names:
            if self.knows.get(name, ("", 0.0))[0] != kind:
                self.knows[name] = (kind, now)
        self.news.set()
        self.news = trio.Event()

    async def until(self, kind: str, names: Sequence[str]) -> float:
        """Wait until it says this of all of them; return when it said it of the last."""
        with trio.fail_after(PATIENCE_SECONDS):
            while any(self.knows.get(name, ("", 0.0))[0] != kind for name in names):
                await self.news.wait()
        return max(self.knows[name][1] for name in names)

    async def lines(self, take: Callable[[str], None]) -> None:
        """Take each line that it prints."""
        assert self.process.stdout is not None
        waiting = b""
        async for data in self.process.stdout:
            *whole, waiting = (waiting + data).split(b"\n")
            for line in whole:
                take(line.decode("utf-8", "replace"))


class Kind:
    """A kind of cluster: how its members are started and told to join."""

    name: str

    async def start(self, name: str, profile: str, nursery: trio.Nursery) -> Member:
        """Start a member; it is alone."""
        raise NotImplementedError

    async def join(self, member: Member, through: Member) -> None:
        """Let a member join."""
        raise NotImplementedError


class Ours(Kind):
    """Members of this project."""

    name = "proglog-trio"

    async def start(self, name: str, profile: str, nursery: trio.Nursery) -> Member:
        """Start a process that is a member and nothing else."""
        command = [sys.executable, "-m", "benchmarks._member", name, profile]
        process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        member = Member(name, process)
        listening = trio.Event()

        def take(line: str) -> None:
            said: dict[str, Any] = json.loads(line)
            if "address" in said:
                member.address = said["address"]
                listening.set()
            else:
                member.note(said["event"], said["names"])

        nursery.start_soon(member.lines, take)
        with trio.fail_after(PATIENCE_SECONDS):
            await listening.wait()
        return member

    async def join(self, member: Member, through: Member) -> None:
        """Tell it by its standard input."""
        assert member.process.stdin is not None
        await member.process.stdin.send_all(f"{through.address}\n".encode())


class Serf(Kind):
    """Serf's agents."""

    name = "serf"

    async def start(self, name: str, profile: str, nursery: trio.Nursery) -> Member:
        """Start an agent; it logs to its standard output."""
        port, rpc = _free_port(), _free_port()
        command = [
            "serf", "agent", f"-node={name}", f"-bind=127.0.0.1:{port}", f"-rpc-addr=127.0.0.1:{rpc}",
            f"-profile={profile}",
        ]  # fmt: skip
        process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        member = Member(name, process, f"127.0.0.1:{port}", rpc)

        def take(line: str) -> None:
            said = _LOGGED.search(line)
            if said is not None:
                member.note((said[1] or said[2]).lower(), [said[3]])

        nursery.start_soon(member.lines, take)
        await member.until("join", [name])
        return member

    async def join(self, member: Member, through: Member) -> None:
        """Tell it by its IPC: a process for each `serf join` would take longer than the joins."""
        async with await trio.open_tcp_stream("127.0.0.1", member.rpc) as stream:
            pack = msgpack.Packer().pack
            handshake = pack({"Command": "handshake", "Seq": 0}) + pack({"Version": 1})
            join = pack({"Command": "join", "Seq": 1}) + pack({"Existing": [through.address], "Replay": False})
            await stream.send_all(handshake + join)
            unpacker = msgpack.Unpacker()
            answers: list[Any] = []
            while len(answers) < 3:  # two headers, and how many it has joined through
                unpacker.feed(await stream.receive_some())
                answers += list(unpacker)
            if answers[1]["Error"] or answers[2]["Num"] != 1:
                raise RuntimeError(f"the agent did not join: {answers}")


@frozen
class Figures:
    """What one round measured: seconds, percent of a core and MiB a member, packets a second of the whole cluster."""

    join_seconds: float
    failure_seconds: float
    cpu_percent: float
    resident_mebibytes: float
    packets_per_second: float


def _free_port() -> int:
    """Return a port of the loopback address that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _packets_sent() -> int:
    """Return how many UDP packets have been sent in this network namespace (proc_net(5), snmp)."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line[:4] == "Udp:")
    return int(values[names.index("OutDatagrams")])


def _cpu_seconds(members: Sequence[Member]) -> float:
    times = [psutil.Process(member.process.pid).cpu_times() for member in members]
    return sum(used.user + used.system for used in times)


@asynccontextmanager
async def cluster_of(kind: Kind, size: int, profile: str) -> AsyncIterator[list[Member]]:
    """Start members that are alone; all are killed when the block ends."""
    members: list[Member] = []
    async with trio.open_nursery() as nursery:
        try:
            async with trio.open_nursery() as starting:
                limiter = trio.CapacityLimiter(4)

                async def start(number: int) -> None:
                    async with limiter:
                        members.append(await kind.start(f"m{number}", profile, nursery))

                for number in range(size):
                    starting.start_soon(start, number)
            yield members
        finally:
            with trio.CancelScope(shield=True):
                for member in members:
                    if member.process.poll() is None:
                        member.process.kill()
                    await member.process.wait()
            nursery.cancel_scope.cancel()


async def last_of(members: Sequence[Member], kind: str, names: Sequence[str]) -> float:
    """Return when the last of the members said this of all these names."""
    moments: list[float] = []

    async def wait(member: Member) -> None:
        moments.append(await member.until(kind, names))

    async with trio.open_nursery() as nursery:
        for member in members:
            nursery.start_soon(wait, member)
    return max(moments)


async def measure(kind: Kind, size: int, profile: str, idle_seconds: float) -> Figures:
    """Run one round with one kind of cluster."""
    async with cluster_of(kind, size, profile) as members:
        names = [member.name for member in members]
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for member in members[1:]:
                nursery.start_soon(kind.join, member, members[0])
            joined = await last_of(members, "join", names) - began

        await trio.sleep(2)  # what came with the joins shall not count as idle
        cpu, packets, began = _cpu_seconds(members), _packets_sent(), time.perf_counter()
        await trio.sleep(idle_seconds)
        took = time.perf_counter() - began
        cpu, packets = _cpu_seconds(members) - cpu, _packets_sent() - packets
        resident = sum(psutil.Process(member.process.pid).memory_info().rss for member in members) / size

        victim = members[size // 2]
        survivors = [member for member in members if member is not victim]
        began = time.perf_counter()
        victim.process.kill()
        failed = await last_of(survivors, "failed", [victim.name]) - began
        return Figures(joined, failed, 100 * cpu / took / size, resident / MEBIBYTE, packets / took)


def compare(sizes: Sequence[int], rounds: int, profile: str, idle_seconds: float) -> bool:
    """Measure both kinds in turn, and print medians and ratios; return whether all goals are reached."""
    reached = True
    for size in sizes:
        print(f"\n{size} members, {profile} profile, median of {rounds}{'' if rounds > 1 else ' (one round)'}")
        figures: dict[str, list[Figures]] = {Ours.name: [], Serf.name: []}
        for number in range(rounds):
            for kind in (Ours(), Serf()) if number % 2 else (Serf(), Ours()):
                figures[kind.name].append(trio.run(measure, kind, size, profile, idle_seconds))
        print(f"{'':<40}{Ours.name:>14}{Serf.name:>10}{'ratio':>8}")
        for what, unit, of, bound in (
            ("joins known to all", "s", lambda one: one.join_seconds, "ratio"),
            ("a kill -9 known to all", "s", lambda one: one.failure_seconds, "ratio"),
            ("CPU of an idle member", "%", lambda one: one.cpu_percent, "cpu"),
            ("resident memory of a member", "MiB", lambda one: one.resident_mebibytes, ""),
            ("UDP packets of all, idle", "/s", lambda one: one.packets_per_second, ""),
        ):
            ours, serf = (statistics.median(map(of, figures[name])) for name in (Ours.name, Serf.name))
            ratio = ours / serf if serf else float("nan")
            words = ""
            if bound:
                met = ratio <= TIME_GOAL if bound == "ratio" else ours <= CPU_GOAL_PERCENT
                reached &= met
                words = f"ratio of {TIME_GOAL}" if bound == "ratio" else f"{CPU_GOAL_PERCENT} %"
                words = f"   goal, at most {words}: {goal(met)}"
            print(f"{what + ', ' + unit:<40}{ours:>14.2f}{serf:>10.2f}{ratio:>8.2f}{words}")
    return reached


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


def enter_own_network(module: str) -> None:
    """Begin anew in a network namespace of its own, where that can be had; module: the benchmark's."""
    if os.environ.get(INSIDE) or os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip"))):
        return
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        return
    again = [sys.executable, "-m", module, *sys.argv[1:]]
    script = 'ip link set lo up && exec "$@"'
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-n", "sh", "-c", script, "sh", *again])  # noqa: S606 - that is the point


def sizes_of(text: str) -> list[int]:
    """Read the sizes of clusters."""
    sizes = [int(part) for part in text.split(",")]
    if any(size < 2 for size in sizes):
        raise argparse.ArgumentTypeError("a cluster has at least 2 members")
    return sizes


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=sizes_of, default=[3, 10, 30], help="members of the clusters, as 3,10,30")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is done")
    parser.add_argument("--profile", choices=["lan", "local", "wan"], default="local")
    parser.add_argument("--idle-seconds", type=float, default=10.0, help="how long idle members are watched")
    parser.add_argument("--busy", action="store_true", help="watch nodes under load instead")
    parser.add_argument("--busy-seconds", type=float, default=30.0, help="how long they are loaded")
    parser.add_argument("--nodes", type=int, default=3, help="how many are loaded")
    arguments = parser.parse_args()
    enter_own_network("benchmarks.membership")
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
        met = compare(arguments.sizes, arguments.rounds, arguments.profile, arguments.idle_seconds)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
