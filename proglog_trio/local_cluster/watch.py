"""Asking the nodes of a local cluster how they are."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from attrs import evolve

from proglog_trio._proto.log.v1 import GetStatusResponse, Member
from proglog_trio.address import Address
from proglog_trio.errors import CallFailed, NodeConnectionError
from proglog_trio.local_cluster.node_process import NodeProcess
from proglog_trio.local_cluster.snapshot import ClusterSnapshot, NodeSnapshot
from proglog_trio.rpc.calls.cluster import get_members, get_status
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop

ANSWER_SECONDS = 2.0


async def take_snapshot(
    cluster_name: str, nodes: Sequence[NodeProcess], before: ClusterSnapshot | None
) -> ClusterSnapshot:
    """Ask all nodes at once, also those that have ended: a person may have started them again.

    Args:
        cluster_name: its name.
        nodes: which were ready once.
        before: the last snapshot, to compute rates.
    """
    earlier = {} if before is None else {node.name: node for node in before.nodes}
    taken: dict[str, NodeSnapshot] = {}
    members: dict[str, Sequence[Member]] = {}

    async def ask(node: NodeProcess) -> None:
        name, address = node.plan.name, node.ready().rpc_address
        status, problem = await _status(name, address)
        snapshot = NodeSnapshot(name, address, node.exit_code, status, problem, trio.current_time())
        taken[name] = evolve(snapshot, rates=snapshot.after(earlier.get(name)))
        if status is not None:
            members[name] = await _members(address)

    async with asyncio_loop(), trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(ask, node)
    seen = next((members[node.plan.name] for node in nodes if members.get(node.plan.name)), ())
    return ClusterSnapshot(cluster_name, [taken[node.plan.name] for node in nodes], seen)


async def _status(name: str, address: Address) -> tuple[GetStatusResponse | None, str | None]:
    try:
        status = await get_status(str(address), ANSWER_SECONDS)
    except (NodeConnectionError, CallFailed) as error:
        return None, str(error)
    if status.node_name != name:
        return None, f"the node at {address} calls itself {status.node_name!r}"
    return status, None


async def _members(address: Address) -> Sequence[Member]:
    try:
        return await get_members(str(address), ANSWER_SECONDS)
    except (NodeConnectionError, CallFailed):
        return ()  # it has just ended; another node is asked, and this one shown as it is in a moment
