"""Clusters of real node processes, asked by their status until they are as wanted."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from proglog_trio._proto.log.v1 import GetStatusResponse
from proglog_trio.client import ClientTls, ConnectionConfig, ConsumedRecord, ConsumerConfig, open_consumer
from proglog_trio.rpc.calls.cluster import get_status
from tests.members import HasAddress, NodeInside, node_inside
from tests.node_process import NodeProcess, node_process

LOCAL = ("--gossip-profile", "local")
WAIT_SECONDS = 60
FOREIGN_CLIENT = Path(__file__).parent.parent / "rpc" / "foreign_client.py"


def joining(node: NodeProcess) -> tuple[str, str]:
    """The option of a node that joins through another."""
    return ("--start-join-addrs", str(node.ready["gossip_addr"]))


@asynccontextmanager
async def running_nodes(
    directory: Path, names: str, *options: str, tls: ClientTls | None = None
) -> AsyncIterator[list[NodeProcess]]:
    """Run a node for each letter, and wait until each pulls from all others; tls: to ask them."""
    async with AsyncExitStack() as stack:
        nodes: list[NodeProcess] = []
        for name in names:
            join = joining(nodes[0]) if nodes else ()
            nodes.append(
                await stack.enter_async_context(
                    node_process(directory / name, "--node-name", name, *LOCAL, *join, *options)
                )
            )
        for node in nodes:
            await wait_for(node, lambda status: connected(status) == len(nodes) - 1, tls)
        yield nodes


@asynccontextmanager
async def nodes_inside(directory: Path, names: str, **options: Any) -> AsyncIterator[list[NodeInside]]:
    """Run a node for each letter in this process, and wait until each pulls from all others."""
    async with AsyncExitStack() as stack:
        nodes: list[NodeInside] = []
        for name in names:
            join = nodes[0].gossip if nodes else None
            nodes.append(await stack.enter_async_context(node_inside(directory / name, name, join=join, **options)))
        for node in nodes:
            await wait_for(node, lambda status: connected(status) == len(nodes) - 1)
        yield nodes


def connected(status: GetStatusResponse) -> int:
    """From how many peers a node pulls."""
    return sum(peer.connected for peer in status.peers)


async def status_of(node: HasAddress, tls: ClientTls | None = None) -> GetStatusResponse:
    """What a node says of itself."""
    return await get_status(node.address, WAIT_SECONDS, tls=tls)


async def wait_for(
    node: HasAddress, wanted: Callable[[GetStatusResponse], bool], tls: ClientTls | None = None
) -> GetStatusResponse:
    """Ask a node for its status until that is as wanted."""
    with trio.fail_after(WAIT_SECONDS):
        while not wanted(status := await status_of(node, tls)):
            await trio.lowlevel.checkpoint()
    return status


async def wait_for_records(nodes: Sequence[HasAddress], count: int, tls: ClientTls | None = None) -> None:
    """Wait until each log has so many records."""
    for node in nodes:
        await wait_for(node, lambda status: status.next_offset >= count, tls)


async def records_of(node: HasAddress, tls: ClientTls | None = None) -> list[ConsumedRecord]:
    """All that a node's log has, in its order."""
    connection = ConnectionConfig(tls=tls)
    async with open_consumer(node.address, ConsumerConfig(follow=False), connection=connection) as consumer:
        return [record async for record in consumer]


async def foreign(stubs: Path, node: NodeProcess, command: str, count: int) -> Any:
    """What a client of the book's contract finds, in a process of its own."""
    done = await trio.run_process(
        [sys.executable, FOREIGN_CLIENT, stubs, node.address, command, str(count)], capture_stdout=True
    )
    return json.loads(done.stdout)
