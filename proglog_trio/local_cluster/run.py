"""Running a local cluster.

```
run_local_cluster
└── nodes            one nursery
    ├── node-1       its process; ended by cancellation, see node_process.py
    ├── node-2
    └── the watch    asks all nodes, shows what they say
```
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio
from attrs import evolve

from proglog_trio.errors import CallFailed, NodeConnectionError, ProglogError
from proglog_trio.local_cluster.events import Event, Ready, Stopped, Stopping
from proglog_trio.local_cluster.node_process import STOP_SECONDS, NodeProcess
from proglog_trio.local_cluster.output import Output
from proglog_trio.local_cluster.plan import ClusterPlan, NodePlan
from proglog_trio.local_cluster.ports import check_ports
from proglog_trio.local_cluster.snapshot import ClusterSnapshot
from proglog_trio.local_cluster.watch import take_snapshot
from proglog_trio.rpc.calls.cluster import join

JOIN_SECONDS = 30.0
_SAYING_SECONDS = 1.0
"""For the last words, when their reader may have stopped."""


class LocalClusterFailed(ProglogError):
    """A local cluster that cannot go on: nodes that do not find each other, or none that is left."""


async def run_local_cluster(
    plan: ClusterPlan, output: Output, *, refresh_seconds: float = 1.0, stop_seconds: float = STOP_SECONDS
) -> None:
    """Start the nodes, show how they are until cancelled, and end them.

    Args:
        plan: what to run.
        output: is told everything.
        refresh_seconds: how often the nodes are asked.
        stop_seconds: how long a node may take to stop before it is killed.

    Raises:
        AddressUnavailable: a port is taken.
        OSError: the directory or a file in it cannot be written.
        NodeNotStarted, LocalClusterFailed: see there. Possibly several, in a group.
    """
    plan.directory.mkdir(parents=True, exist_ok=True)
    planned = plan.nodes()
    check_ports(planned)
    plan.write_config_files(planned)
    options = tuple(plan.options(planned[0], planned))
    nodes = [NodeProcess(node, options, output.tell, stop_seconds) for node in planned]
    stopping: tuple[str, ...] = ()
    try:
        async with trio.open_nursery() as nursery:
            try:
                await _start(nursery, nodes)
                plan.write_config_files([_settled(node) for node in nodes])
                await _join(nodes)
                await output.tell(Ready(plan.directory, {n.plan.name: n.ready().rpc_address for n in nodes}))
                await _watch(plan, nodes, output, refresh_seconds)
            finally:
                stopping = tuple(n.plan.name for n in nodes if n.running is not None and n.exit_code is None)
                if stopping:
                    await _say(output, Stopping(stopping))
    finally:
        if stopping:
            await _say(output, Stopped(plan.directory, stopping))


def _settled(node: NodeProcess) -> NodePlan:
    """Return the plan of a node with the ports that it has, so that its file starts it again at the same ones."""
    running = node.ready()
    return evolve(node.plan, rpc_address=running.rpc_address, gossip_address=running.gossip_address)


async def _start(nursery: trio.Nursery, nodes: Sequence[NodeProcess]) -> None:
    async with trio.open_nursery() as starting:
        for node in nodes:
            starting.start_soon(partial(nursery.start, node.run))


async def _join(nodes: Sequence[NodeProcess]) -> None:
    first, *others = [node.ready() for node in nodes]
    if not others:
        return
    try:
        await join(str(first.rpc_address), [str(other.gossip_address) for other in others], JOIN_SECONDS)
    except (NodeConnectionError, CallFailed) as error:
        raise LocalClusterFailed(f"the nodes do not find each other: {error}") from error


async def _watch(plan: ClusterPlan, nodes: Sequence[NodeProcess], output: Output, refresh_seconds: float) -> None:
    snapshot: ClusterSnapshot | None = None
    async with output.showing():
        while True:
            snapshot = await take_snapshot(plan.cluster_name, nodes, snapshot)
            if all(node.exit_code is not None for node in nodes) and all(n.status is None for n in snapshot.nodes):
                raise LocalClusterFailed("no node is left")
            await output.show(snapshot)
            await trio.sleep(refresh_seconds)


async def _say(output: Output, event: Event) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(_SAYING_SECONDS):
        await output.tell(event)
