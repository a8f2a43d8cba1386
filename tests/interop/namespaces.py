"""Islands: network namespaces that have a link to this process's network, and none to each other.

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
from contextlib import asynccontextmanager

import trio
from attrs import frozen

from .agents import end, run_command

PROGRAMS = ("ip", "nsenter", "unshare")


def why_none() -> str | None:
    """Return why there cannot be any islands here; None: there can."""
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
class Island:
    """A network namespace.

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
    # Of 198.18.0.0/15, which is for tests of networks and in no other use (RFC 2544).
    network = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
    first = 4 * random.randrange(64)
    gateway, address = f"{network}.{first + 1}", f"{network}.{first + 2}"
    ours, theirs = (f"pg{random.randrange(2**32):08x}{end}" for end in "op")
    holder = await trio.lowlevel.open_process(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep 600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        with trio.fail_after(30):
            await holder.stdout.receive_some(1)  # it is in its namespace then
        enter = ("nsenter", f"--net=/proc/{holder.pid}/ns/net")
        await _must("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", str(holder.pid))
        await _must("ip", "address", "add", f"{gateway}/30", "dev", ours)
        await _must("ip", "link", "set", ours, "up")
        # Packets between islands come this far and are lost, also where the machine is a router: a sender whom the
        # system tells that there is no way would not wait for answers by other ways.
        await trio.Path(f"/proc/sys/net/ipv4/conf/{ours}/forwarding").write_text("0")
        await _must(*enter, "ip", "address", "add", f"{address}/30", "dev", theirs)
        await _must(*enter, "ip", "link", "set", theirs, "up")
        await _must(*enter, "ip", "link", "set", "lo", "up")
        await _must(*enter, "ip", "route", "add", "default", "via", gateway)
        yield Island(address, gateway, enter)
    finally:
        with trio.CancelScope(shield=True):
            await run_command("ip", "link", "delete", ours)
            await end(holder)
            if holder.stdout is not None:
                await holder.stdout.aclose()


async def _must(*command: str) -> None:
    result = await run_command(*command)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.decode().strip()}")
