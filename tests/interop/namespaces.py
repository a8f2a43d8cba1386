"""Network namespaces: islands, which have a link to this process's network and none to each other, and a network.

Each is held by a process that only waits; when it ends, the namespace and both ends of its link go with it. This needs
Linux and its root.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from attrs import define, field, frozen

from tests.interop.agents import end, run_command

PROGRAMS = ("ip", "nsenter", "unshare")
HELD_SECONDS = 1200.0


def why_none() -> str | None:
    """Return why there cannot be any namespaces here; None: there can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)} (Debian: iproute2, util-linux)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    link = f"pgp{os.getpid() % 1_000_000}"
    # In a namespace of its own, so that nothing is left whatever happens.
    attempt = subprocess.run(
        ["unshare", "-n", "ip", "link", "add", link, "type", "veth", "peer", "name", f"{link}p"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"network namespaces are not allowed here: {attempt.stderr.strip()}" if attempt.returncode else None


@frozen
class Namespace:
    """A network namespace.

    Attributes:
        holder: the process id of what holds it.
        enter: the command that runs another inside.
    """

    holder: int
    enter: tuple[str, ...]


@asynccontextmanager
async def _namespace(seconds: float = HELD_SECONDS) -> AsyncIterator[Namespace]:
    """Make a namespace for the length of the block, which is to end before so many seconds are over."""
    holder = await trio.lowlevel.open_process(
        ["unshare", "-n", "sh", "-c", f"echo; exec sleep {seconds}"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        with trio.fail_after(30):
            await holder.stdout.receive_some(1)  # it is in its namespace then
        enter = ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        await _must(*enter, "ip", "link", "set", "lo", "up")
        yield Namespace(holder.pid, enter)
    finally:
        with trio.CancelScope(shield=True):
            await end(holder)
            if holder.stdout is not None:
                await holder.stdout.aclose()


@asynccontextmanager
async def _link(gateway: str, bits: int, to: Namespace) -> AsyncIterator[str]:
    """Link a namespace to this process's network for the length of the block; give the name of the link's end there.

    Args:
        gateway: this process's address on the link.
        bits: of the link's network.
        to: the namespace.
    """
    ours, theirs = (f"pg{random.randrange(2**32):08x}{end}" for end in "op")
    await _must("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(to.holder))
    try:
        await _must("ip", "address", "add", f"{gateway}/{bits}", "dev", ours)
        await _must("ip", "link", "set", ours, "up")
        # Packets between namespaces come this far and are lost, also where the machine is a router: a sender whom the
        # system tells that there is no way would not wait for answers by other ways.
        await trio.Path(f"/proc/sys/net/ipv4/conf/{ours}/forwarding").write_text("0")
        await _must(*to.enter, "ip", "link", "set", theirs, "up")
        yield theirs
    finally:
        with trio.CancelScope(shield=True):
            await run_command("ip", "link", "delete", ours)


def _some_network() -> str:
    # Of 198.18.0.0/15, which is for tests of networks and in no other use (RFC 2544).
    return f"198.{random.choice((18, 19))}.{random.randrange(256)}"


@frozen
class Island:
    """A network namespace by itself.

    Attributes:
        address: of this island.
        gateway: this process's address on the link.
        enter: the command that runs another inside.
    """

    address: str
    gateway: str
    enter: tuple[str, ...]

    async def reaches(self, address: str, port: int) -> bool:
        """Tell whether a program on the island can connect to an address."""
        connect = f"import socket; socket.create_connection(({address!r}, {port}), timeout=1)"
        return (await run_command(*self.enter, sys.executable, "-c", connect)).returncode == 0


@asynccontextmanager
async def island() -> AsyncIterator[Island]:
    """Make an island for the length of the block."""
    network, first = _some_network(), 4 * random.randrange(64)
    gateway, address = f"{network}.{first + 1}", f"{network}.{first + 2}"
    async with _namespace() as namespace, _link(gateway, 30, namespace) as end_there:
        await _must(*namespace.enter, "ip", "address", "add", f"{address}/30", "dev", end_there)
        await _must(*namespace.enter, "ip", "route", "add", "default", "via", gateway)
        yield Island(address, gateway, namespace.enter)


@define(eq=False)
class Network:
    """Machines of their own, as far as their addresses go: namespaces that reach each other and this process.

    Attributes:
        gateway: this process's address.
    """

    gateway: str
    _prefix: str
    _hub: Namespace
    _stack: AsyncExitStack
    _seconds: float = HELD_SECONDS
    _machines: dict[str, tuple[str, ...]] = field(factory=dict)

    async def machine(self, address: str | None = None) -> tuple[str, tuple[str, ...]]:
        """Return the address of a machine and the command that runs another on it.

        Args:
            address: of a machine that is there already; None: a new one.
        """
        if address is not None:
            return address, self._machines[address]
        number = len(self._machines) + 2
        address = f"{self._prefix}.{number}"
        namespace = await self._stack.enter_async_context(_namespace(self._seconds))
        port = f"m{number}"
        hub = self._hub.enter
        await _must(
            *hub, "ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(namespace.holder)
        )
        await _must(*hub, "ip", "link", "set", port, "master", "hub", "up")
        await _must(*namespace.enter, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        await _must(*namespace.enter, "ip", "link", "set", "eth0", "up")
        await _must(*namespace.enter, "ip", "route", "add", "default", "via", self.gateway)
        self._machines[address] = namespace.enter
        return address, namespace.enter


@asynccontextmanager
async def network(*, seconds: float = HELD_SECONDS) -> AsyncIterator[Network]:
    """Make a network without machines for the length of the block, which ends before so many seconds are over."""
    prefix = _some_network()
    gateway = f"{prefix}.1"
    # The switch is in a namespace too: what this machine's firewall says of its own switches does not count there.
    async with _namespace(seconds) as hub, _link(gateway, 24, hub) as end_there:
        await _must(*hub.enter, "ip", "link", "add", "hub", "type", "bridge")
        await _must(*hub.enter, "ip", "link", "set", end_there, "master", "hub")
        await _must(*hub.enter, "ip", "link", "set", "hub", "up")
        async with AsyncExitStack() as stack:
            yield Network(gateway, prefix, hub, stack, seconds)


async def _must(*command: str) -> None:
    result = await run_command(*command)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.decode().strip()}")
