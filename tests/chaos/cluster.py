"""Five nodes that are killed, stopped, cut off and damaged, as real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import Factory, define, field

from proglog_trio._proto.log.v1 import GetStatusResponse
from proglog_trio.errors import CallFailed, NodeConnectionError
from proglog_trio.log.chunk import CUT_OFF
from proglog_trio.rpc.calls.cluster import get_status
from tests.chaos.switch import Switch, switch
from tests.interop.agents import end
from tests.node_process import READY_SECONDS, clean_environment, read_line, run_command

AGREE_SECONDS = 120.0
POLL_SECONDS = 0.25


@define(eq=False)
class ChaosNode:
    """A node, whether or not it runs.

    Attributes:
        rpc_addr: where clients find it, also after a restart.
    """

    name: str
    directory: Path
    rpc_addr: str
    command: tuple[str, ...]
    process: trio.Process | None = None
    is_stopped: bool = False

    @property
    def is_up(self) -> bool:
        return self.process is not None and not self.is_stopped

    @property
    def stores(self) -> list[Path]:
        """Its segments, the oldest first."""
        return sorted((self.directory / "log").glob("*.store"))


@define(eq=False)
class ChaosCluster:
    """The nodes.

    Attributes:
        network: None where the nodes share this process's.
        history: what was done, in words.
    """

    nodes: dict[str, ChaosNode]
    network: Switch | None
    rng: random.Random
    _watches: trio.Nursery
    history: list[str] = Factory(list)
    _began: float = field(factory=trio.current_time)

    def note(self, what: str) -> None:
        self.history.append(f"{trio.current_time() - self._began:.1f} s: {what}")

    @property
    def addresses(self) -> list[str]:
        return [node.rpc_addr for node in self.nodes.values()]

    def some(self, *, up: bool) -> ChaosNode | None:
        found = [node for node in self.nodes.values() if node.is_up == up]
        return self.rng.choice(found) if found else None

    # -- processes -----------------------------------------------------------------------------------------------------

    async def start(self, node: ChaosNode) -> None:
        self.note(f"start {node.name}")
        with (node.directory.parent / f"{node.name}.stderr").open("ab") as stderr:
            node.process = await trio.lowlevel.open_process(
                list(node.command), stdin=None, stdout=subprocess.PIPE, stderr=stderr, env=clean_environment()
            )
        assert node.process.stdout is not None
        with trio.fail_after(READY_SECONDS):
            line = await read_line(node.process.stdout)
        assert line, f"{node.name} did not start: {self.logged(node)[-2000:]}"
        self._watches.start_soon(self._watch, node, node.process)

    async def _watch(self, node: ChaosNode, process: trio.Process) -> None:
        """Fail as soon as a node ends by itself: what it alone has would otherwise be taken for lost later."""
        code = await process.wait()
        if node.process is process:
            raise AssertionError(
                f"{node.name} ended by itself with {code}, after {self.history[-5:]}: {self.logged(node)[-4000:]}"
            )

    async def kill(self, node: ChaosNode) -> None:
        self.note(f"kill {node.name}")
        process, node.process, node.is_stopped = node.process, None, False
        if process is not None:
            await end(process)
            if process.stdout is not None:
                await process.stdout.aclose()

    def pause(self, node: ChaosNode) -> None:
        assert node.process is not None
        self.note(f"pause {node.name}")
        node.process.send_signal(signal.SIGSTOP)
        node.is_stopped = True

    def resume(self, node: ChaosNode) -> None:
        self.note(f"resume {node.name}")
        node.is_stopped = False
        if node.process is not None:
            node.process.send_signal(signal.SIGCONT)

    def logged(self, node: ChaosNode) -> str:
        return (node.directory.parent / f"{node.name}.stderr").read_text()

    async def end_of_faults(self) -> None:
        """Let everything run and reach everything."""
        if self.network is not None:
            await self.network.heal()
        for node in self.nodes.values():
            if node.is_stopped:
                self.resume(node)
            if node.process is None:
                await self.start(node)

    # -- what is checked -----------------------------------------------------------------------------------------------

    async def statuses(self) -> list[GetStatusResponse] | None:
        """Return what every node says of itself; None while one does not answer."""
        found = []
        for node in self.nodes.values():
            try:
                found.append(await get_status(node.rpc_addr, 5.0))
            except (NodeConnectionError, CallFailed):
                return None
        return found

    async def agree(self) -> int:
        """Wait until every log has the same next of every origin; return how many records that are."""
        last: object = None
        with trio.move_on_after(AGREE_SECONDS):
            while True:
                statuses = await self.statuses()
                if statuses is not None:
                    last = [{origin.origin: origin.next for origin in each.origins} for each in statuses]
                    if all(nexts == last[0] for nexts in last):
                        return sum(last[0].values())
                await trio.sleep(POLL_SECONDS)
        raise AssertionError(f"the logs do not agree after {AGREE_SECONDS} s: {last}\n{self.history}")

    async def verified(self, cut_at_the_end: Collection[ChaosNode] = ()) -> bool:
        """Tell whether all logs are sound, and the same.

        Args:
            cut_at_the_end: nodes whose newest file was cut. Their logs name the offsets that they lost; the records are
                in them again at others. In any other log that is damage as well.
        """
        nodes = list(self.nodes.values())
        others = [str(node.directory) for node in nodes[1:]]
        for node in nodes:
            against = ("--against", *others) if node is nodes[0] else ()
            code, output, _ = await run_command("log", "verify", str(node.directory), *against)
            lines = output.decode().splitlines()
            allowed = [line for line in lines if CUT_OFF in line] if node in cut_at_the_end else []
            bad = [line for line in lines if line.startswith("damage:") and line not in allowed]
            bad += [line for line in lines if line.startswith("difference:")]
            bad += [line for line in lines if " frames are the same" in line and " no holes" not in line]
            if bad or (code and not allowed):
                self.note("\n".join(bad or lines)[-2000:])
                return False
        return True

    async def become_sound(self, cut_at_the_end: Collection[ChaosNode] = ()) -> None:
        """Wait until all logs are sound, and the same; see verified."""
        with trio.move_on_after(AGREE_SECONDS):
            while not await self.verified(cut_at_the_end):  # noqa: ASYNC110 - the nodes repair their logs by themselves
                await trio.sleep(POLL_SECONDS)
            return
        raise AssertionError(f"the logs are not the same: {self.history[-3:]}")


@asynccontextmanager
async def chaos_cluster(
    directory: Path, count: int, seed: int, *, in_namespaces: bool, lossy: bool = False, options: Sequence[str] = ()
) -> AsyncIterator[ChaosCluster]:
    """Run nodes for the length of the block, each in a network namespace of its own if that is wanted."""
    names = [f"n{number}" for number in range(count)]
    if in_namespaces:
        async with switch(names) as network, _cluster(directory, names, seed, network, lossy, options) as cluster:
            yield cluster
    else:
        async with _cluster(directory, names, seed, None, lossy, options) as cluster:
            yield cluster


@asynccontextmanager
async def _cluster(
    directory: Path, names: Sequence[str], seed: int, network: Switch | None, lossy: bool, options: Sequence[str]
) -> AsyncIterator[ChaosCluster]:
    hosts = {name: network.hosts[name].address if network is not None else "127.0.0.1" for name in names}
    ports = {name: (8400, 8401) if network is not None else (_free_port(), _free_port()) for name in names}
    gossip = {name: f"{hosts[name]}:{ports[name][1]}" for name in names}
    module = "tests.chaos.lossy_node" if lossy else "proglog_trio"
    nodes = {}
    for name in names:
        enter = network.hosts[name].enter if network is not None else ()
        others = ",".join(address for other, address in gossip.items() if other != name)
        command = (
            *(*enter, sys.executable, "-m", module, "node", "--json", "--node-name", name),
            *("--data-dir", str(directory / name), "--bind-addr", gossip[name], "--rpc-port", str(ports[name][0])),
            *("--start-join-addrs", others, "--gossip-profile", "local", "--cluster-size", str(len(names))),
            *("--insecure", "--segment-bytes", "256KiB", *options),
        )
        nodes[name] = ChaosNode(name, directory / name, f"{hosts[name]}:{ports[name][0]}", command)
    async with trio.open_nursery() as watches:
        cluster = ChaosCluster(nodes, network, random.Random(seed), watches)
        try:
            async with trio.open_nursery() as nursery:
                for node in nodes.values():
                    nursery.start_soon(cluster.start, node)
            yield cluster
        finally:
            with trio.CancelScope(shield=True):
                for node in nodes.values():
                    if node.process is not None:
                        await cluster.kill(node)


def _free_port() -> int:
    from tests.interop.agents import free_port

    return free_port("127.0.0.1")
