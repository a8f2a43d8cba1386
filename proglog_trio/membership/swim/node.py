"""What SWIM knows of a member."""

from __future__ import annotations

import enum
import functools
import ipaddress
from typing import Self

from attrs import Factory, define, field, frozen

_IPV4_MAPPED = bytes(10) + b"\xff\xff"


def _unmapped(address: bytes) -> bytes:
    """Return 4 bytes for an IPv4 address that is written as IPv6: some send it so, and it is the same place."""
    return address[12:] if len(address) == 16 and address.startswith(_IPV4_MAPPED) else address


# Each packet that comes or goes has its address in text, and most are of few members.
@functools.lru_cache(1024)
def _in_text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


@functools.lru_cache(1024)
def _in_bytes(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


@frozen(order=True)
class Endpoint:
    """Where a member takes packets and streams.

    Attributes:
        address: 4 or 16 bytes.
        port: the same for UDP and TCP.
    """

    address: bytes = field(converter=_unmapped)
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> Self:
        """Return the endpoint of an IP address in text; raises ValueError for anything else."""
        return cls(_in_bytes(host), port)

    @property
    def host(self) -> str:
        """The address in text."""
        return _in_text(self.address)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if len(self.address) == 16 else f"{self.host}:{self.port}"


class NodeStatus(enum.IntEnum):
    """A member's state in SWIM, with the number that it has in a push/pull."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@define(eq=False)
class Node:
    """A member as SWIM knows it.

    Attributes:
        name: unique in the cluster.
        endpoint: where it is.
        meta: up to 512 bytes, Serf's tags.
        version: six bytes, protocol and delegate: lowest, highest, current.
        incarnation: of the newest news of it; only the member itself raises it, and it falls only with another address.
        status: see NodeStatus; changed by the rules alone.
        changed: when the status changed, in seconds of the core's timers.
        told_address: its address as it was told, byte for byte, and is told to others: agents at their defaults have
            IPv4 in 16 bytes, and take the same address in 4 for another.
        has_answered: a probe of this node's was answered.
        by_stream_alone: how many of our probes, up to the last, it answered by stream and not by packet.
    """

    name: str
    endpoint: Endpoint
    meta: bytes
    version: bytes
    incarnation: int
    status: NodeStatus
    changed: float
    told_address: bytes = Factory(lambda node: node.endpoint.address, takes_self=True)
    has_answered: bool = False
    by_stream_alone: int = 0

    @property
    def is_gone(self) -> bool:
        """Whether it is dead or has left."""
        return self.status in (NodeStatus.DEAD, NodeStatus.LEFT)

    @property
    def highest_protocol(self) -> int:
        """The highest protocol version that it understands."""
        return self.version[1] if len(self.version) == 6 else 0
