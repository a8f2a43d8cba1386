"""Nodes that gossip, in this process, and what members say of each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.run import RunningNode, run_node
from proglog_trio.rpc.calls.cluster import get_members

WAIT_SECONDS = 60


class HasAddress(Protocol):
    """A node that takes RPCs, in whichever process."""

    @property
    def address(self) -> str:
        """Where the node takes RPCs, as host:port."""


@frozen
class NodeInside:
    """A node in this process."""

    running: RunningNode

    @property
    def address(self) -> str:
        """Where the node takes RPCs, as host:port."""
        return str(self.running.rpc_address)

    @property
    def gossip(self) -> str:
        """Where the node gossips, as host:port."""
        return str(self.running.gossip_address)


@asynccontextmanager
async def node_inside(
    data_dir: Path, name: str, *, join: str | None = None, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[NodeInside]:
    """Run a node with quick gossip in this process, and have it leave at the block's end.

    Where a process of its own is not what a test is about: to start one takes a second of a core.

    Args:
        data_dir: where it has its log.
        name: its name.
        join: where a member gossips, through which it joins.
        host: where it listens.
        options: further fields of its configuration.
    """
    # How much is free where the tests run is no business of theirs.
    options.setdefault("disk_reserve", 0)
    config = NodeConfig(
        data_dir=data_dir,
        node_name=name,
        rpc_port=0,
        bind_addr=Address(host, 0),
        gossip_profile="local",
        start_join_addrs=() if join is None else (Address.parse(join),),
        **options,
    )
    async with trio.open_nursery() as nursery:
        yield NodeInside(await nursery.start(run_node, config))
        nursery.cancel_scope.cancel()


async def members(node: HasAddress) -> dict[str, dict[str, Any]]:
    """What a node says of the members, by name; asked from this process, as `members --json` asks it."""
    found = await get_members(node.address, WAIT_SECONDS)
    return {each.name: {"status": str(each.status.name).lower(), "tags": dict(each.tags)} for each in found}


async def wait_for(node: HasAddress, wanted: Callable[[dict[str, dict[str, Any]]], bool]) -> dict[str, dict[str, Any]]:
    """Ask a node for its members until they are as wanted."""
    with trio.fail_after(WAIT_SECONDS):
        while not wanted(found := await members(node)):
            await trio.lowlevel.checkpoint()
    return found


def statuses(**wanted: str) -> Callable[[dict[str, dict[str, Any]]], bool]:
    """Whether there are just these members, with these statuses."""
    return lambda found: {name: each["status"] for name, each in found.items()} == wanted
