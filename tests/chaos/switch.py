"""Hosts on a switch: network namespaces that all reach each other, and whose links can be cut one way or both.

A link is cut by giving a host a neighbour's address that nobody has: packets leave and are lost, as in a partition, and
no sender is told. This needs Linux and its root; see tests/interop/namespaces.py.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import Factory, define

from tests.interop.agents import end, run_command

_NOBODY = "02:00:00:00:00:01"


@define
class Host:
    """A namespace with one address.

    Attributes:
        enter: the command that runs another inside.
    """

    name: str
    address: str
    enter: tuple[str, ...]


@define
class Switch:
    """The hosts, and which links are cut."""

    hosts: dict[str, Host]
    cut_links: set[tuple[str, str]] = Factory(set)

    async def cut(self, source: str, target: str) -> None:
        """Let nothing that one host sends arrive at another."""
        if source == target or (source, target) in self.cut_links:
            return
        self.cut_links.add((source, target))
        one, other = self.hosts[source], self.hosts[target]
        neighbour = ("ip", "neighbour", "replace", other.address, "lladdr", _NOBODY, "dev", "eth0", "nud", "permanent")
        await _must(*one.enter, *neighbour)

    async def partition(self, ours: Sequence[str], *, one_way: bool = False) -> None:
        """Cut all links from some hosts to the others, and back unless one_way."""
        for one in ours:
            for other in set(self.hosts) - set(ours):
                await self.cut(one, other)
                if not one_way:
                    await self.cut(other, one)

    async def heal(self) -> None:
        """Mend all links."""
        for source, target in sorted(self.cut_links):
            host, other = self.hosts[source], self.hosts[target]
            await _must(*host.enter, "ip", "neighbour", "delete", other.address, "dev", "eth0")
        self.cut_links.clear()


@asynccontextmanager
async def switch(names: Sequence[str]) -> AsyncIterator[Switch]:
    """Make a host of each name, for the length of the block; this process is on the same switch."""
    # Of 198.18.0.0/15, which is for tests of networks and in no other use (RFC 2544).
    network = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
    mark = f"{random.randrange(2**28):07x}"
    async with AsyncExitStack() as stack:
        middle = await stack.enter_async_context(_namespace())
        await _must(*middle, "ip", "link", "add", "bridge0", "type", "bridge")
        await _must(*middle, "ip", "link", "set", "bridge0", "up")
        ours = f"pc{mark}o"
        stack.push_async_callback(run_command, "ip", "link", "delete", ours)
        await _connect(middle, ours, "host", (), ours, f"{network}.1")
        hosts = {}
        for number, name in enumerate(names):
            enter = await stack.enter_async_context(_namespace())
            address = f"{network}.{10 + number}"
            await _connect(middle, f"pc{mark}{number}", f"port{number}", enter, "eth0", address)
            await _must(*enter, "ip", "link", "set", "lo", "up")
            hosts[name] = Host(name, address, enter)
        yield Switch(hosts)


@asynccontextmanager
async def _namespace() -> AsyncIterator[tuple[str, ...]]:
    holder = await trio.lowlevel.open_process(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep 7200"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        with trio.fail_after(30):
            await holder.stdout.receive_some(1)  # it is in its namespace then
        yield ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
    finally:
        with trio.CancelScope(shield=True):
            await end(holder)
            if holder.stdout is not None:
                await holder.stdout.aclose()


async def _connect(
    middle: tuple[str, ...], temporary: str, port: str, enter: tuple[str, ...], device: str, address: str
) -> None:
    """Lay a link from the switch to a namespace (this process's own, without enter)."""
    target = enter[1].removeprefix("--net=/proc/").removesuffix("/ns/net") if enter else str(os.getpid())
    other = middle[1].removeprefix("--net=/proc/").removesuffix("/ns/net")
    await _must("ip", "link", "add", temporary, "type", "veth", "peer", "name", port, "netns", other)
    if enter:
        await _must("ip", "link", "set", temporary, "netns", target, "name", device)
    await _must(*enter, "ip", "address", "add", f"{address}/24", "dev", device)
    await _must(*enter, "ip", "link", "set", device, "up")
    await _must(*middle, "ip", "link", "set", port, "master", "bridge0")
    await _must(*middle, "ip", "link", "set", port, "up")


async def _must(*command: str) -> None:
    result = await run_command(*command)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.decode().strip()}")
