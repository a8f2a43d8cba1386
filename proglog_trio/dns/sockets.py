"""The sockets of the server: packets and streams on one port (RFC 7766: both are there, always)."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.unavailable import unavailable

BIND_ATTEMPTS = 16
_IP_PKTINFO = 8
"""Linux's; Python has a name for it since 3.14 only."""
_ANCILLARY_BYTES = 128

Ancillary = Sequence[tuple[int, int, bytes]]


@frozen
class Sender:
    """Who sent a packet.

    Attributes:
        address: where to.
        ancillary: at which of this machine's addresses it came, where the socket stands for all of them.
    """

    address: object
    ancillary: Ancillary


@frozen
class DnsSockets:
    """Both sockets.

    Attributes:
        packets: for UDP.
        streams: for TCP.
        address: where they are; the host as it was told.
        bound_host: the numeric address that they are bound to.
    """

    packets: trio.socket.SocketType
    streams: trio.SocketListener
    address: Address
    bound_host: str

    async def receive(self, most: int) -> tuple[bytes, Sender]:
        """Return the next packet, of a longer one so many bytes, and who sent it."""
        message, ancillary, _, address = await self.packets.recvmsg(most, _ANCILLARY_BYTES)
        return message, Sender(address, [_source(*each) for each in ancillary])

    async def send(self, message: bytes, to: Sender) -> None:
        """Answer a packet, from the address at which it came: clients take no answer from another.

        Raises:
            OSError: it cannot be sent.
        """
        await self.packets.sendmsg([message], to.ancillary, 0, to.address)

    def close(self) -> None:
        """Close both."""
        self.packets.close()
        self.streams.socket.close()


async def bind_both(address: Address) -> DnsSockets:
    """Listen for packets and streams on one port; port 0: one that is free for both.

    Of a name that stands for several addresses, the first is listened at.

    Raises:
        AddressUnavailable: this machine cannot listen there, another process does, or the name cannot be looked up.
    """
    problem = OSError()
    host = await _first_address(address)
    for _ in range(BIND_ATTEMPTS if address.port == 0 else 1):
        try:
            (listener,) = await trio.open_tcp_listeners(address.port, host=host)
        except OSError as error:
            raise unavailable(f"cannot serve DNS on {address}", error) from None
        bound = listener.socket.getsockname()
        packets = trio.socket.socket(listener.socket.family, trio.socket.SOCK_DGRAM)
        try:
            _prepare(packets, bound)
            await packets.bind(bound)
        except OSError as error:
            # With any port allowed, the one that is free for streams may be taken for packets.
            packets.close()
            await listener.aclose()
            problem = error
            continue
        return DnsSockets(packets, listener, Address(address.host, bound[1]), str(bound[0]))
    raise unavailable(f"cannot serve DNS on {address} (UDP)", problem)


async def _first_address(address: Address) -> str:
    try:
        found = await trio.socket.getaddrinfo(address.host, address.port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise unavailable(f"cannot serve DNS on {address}", error) from None
    return str(found[0][4][0])


def _prepare(packets: trio.socket.SocketType, address: tuple[str, int]) -> None:
    """Have packets tell at which address they came, where the socket stands for all of the machine's."""
    if packets.family == socket.AF_INET6:
        # as that for streams
        packets.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if not Address(address[0], address[1]).is_wildcard:
        return
    if packets.family == socket.AF_INET6:
        packets.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        packets.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _source(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Return what has an answer come from where its question came, by whichever interface (ip(7), ipv6(7))."""
    if level == socket.IPPROTO_IPV6:
        return level, kind, data[:16] + bytes(len(data) - 16)
    return level, kind, bytes(4) + data[4:]
