"""Machines that lose a share of the packets that arrive at them: UDP and TCP, from each other machine."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from tests.interop.agents import run_command
from tests.interop.namespaces import Network


@frozen
class Loss:
    """What was lost of what arrived, in packets."""

    arrived: int
    lost: int

    @property
    def share(self) -> float:
        """Of those that arrived."""
        return self.lost / max(1, self.arrived)


async def lose(network: Network, machines: Sequence[Sequence[str]], share: float) -> None:
    """Have machines lose packets from now on, at random; those from and to this process get through.

    They are lost where they arrive: the kernel tells a sender of packets that it must not send.

    Args:
        network: of the machines.
        machines: the command that runs another on each.
        share: of the packets.
    """
    for enter in machines:
        arriving = ("iptables", "-w", "-A", "INPUT", "-i", "eth0", "!", "-s", network.gateway)
        # one rule that only counts, one that drops
        await _must(*enter, *arriving)
        await _must(*enter, *arriving, "-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP")


async def lost(machines: Sequence[Sequence[str]]) -> Loss:
    """Return what machines have lost so far."""
    counts = []
    for enter in machines:
        listed = await _must(*enter, "iptables", "-w", "-L", "INPUT", "-n", "-v", "-x")
        counting, dropping = (int(line.split()[0]) for line in listed.splitlines()[2:])
        counts.append((counting, dropping))
    return Loss(sum(counting for counting, _ in counts), sum(dropping for _, dropping in counts))


async def _must(*command: str) -> str:
    result = await run_command(*command)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.decode().strip()}")
    return result.stdout.decode()
