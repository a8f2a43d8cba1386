"""The sockets of a member: streams and packets on one port, and what the others are told of it."""

from __future__ import annotations

import socket

import trio

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnsuitable
from proglog_trio.membership.addresses.own_addresses import address_to_advertise, address_to_listen_on
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.unavailable import unavailable

BIND_ATTEMPTS = 16
RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
"""For packets that wait to be read, as memberlist has it: bursts come while something else holds the loop."""


async def bind_both(config: GossipConfig) -> tuple[socket.socket, trio.SocketListener, tuple[str, int]]:
    """Listen for streams and packets on one port; return both sockets and the address.

    Raises:
        AddressUnavailable: this machine cannot listen there, another process does, or a name cannot be looked up.
    """
    problem = OSError()
    host = await address_to_listen_on(config.bind_host)
    for _ in range(BIND_ATTEMPTS if config.bind_port == 0 else 1):
        try:
            (listener,) = await trio.open_tcp_listeners(config.bind_port, host=host)
        except OSError as error:
            raise unavailable(f"cannot gossip on {Address(config.bind_host, config.bind_port)}", error) from None
        tcp = listener.socket
        udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            # The system gives less where its limit (net.core.rmem_max) is lower.
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            udp.bind(tcp.getsockname())
        except OSError as error:
            # With any port allowed, the one that is free for streams may be taken for packets.
            udp.close()
            await listener.aclose()
            problem = error
            continue
        bound = tcp.getsockname()
        return udp, listener, (bound[0], bound[1])
    raise unavailable(f"cannot gossip on {Address(config.bind_host, config.bind_port)} (UDP)", problem)


async def advertised_endpoint(config: GossipConfig, bound: tuple[str, int], family: int) -> Endpoint:
    """Return what the others are told: an address of the family that this node listens on.

    Raises:
        AddressUnsuitable: no other could reach it.
    """
    host, port = bound
    if config.advertise_host is not None:
        host = await address_to_advertise(config.advertise_host, family)
    endpoint = Endpoint.of(host.partition("%")[0], config.advertise_port or port)
    if config.learn_host:
        return endpoint  # It is told to nobody before its host is learnt.
    if not any(endpoint.address):
        raise AddressUnsuitable(f"others cannot dial {host}: say with --advertise-addr what they can")
    check_allowed(endpoint, config)
    return endpoint


def check_allowed(endpoint: Endpoint, config: GossipConfig) -> None:
    """Raise AddressUnsuitable if no member may be where this node would tell the others that it is."""
    allowed = config.allowed_networks
    if allowed is not None and not allowed.allow(endpoint.address):
        raise AddressUnsuitable(
            f"this node's own address, {endpoint.host}, is in none of the networks that members may be in: {allowed}"
        )
