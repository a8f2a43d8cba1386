"""Which addresses a node's own names stand for: those that it listens on, and those that it tells others."""

from __future__ import annotations

import ipaddress
import socket

import trio

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnsuitable
from proglog_trio.host_names import ip_literal
from proglog_trio.unavailable import unavailable


async def address_to_listen_on(host: str) -> str:
    """Return the one numeric address that a host stands for when a node listens there.

    Of a name that stands for several, the first IPv4 address, or else the first IPv6 one: gossip and RPC are then at
    the same, and so are those of all nodes that are given names, since packets do not cross from one to the other.

    Raises:
        AddressUnavailable: the host cannot be looked up.
        AddressUnsuitable: it is a name that others would look up in vain; see below.
    """
    return await _looked_up(host, "--bind-addr", socket.AF_UNSPEC)


async def address_to_advertise(host: str, family: int) -> str:
    """Return the numeric address of a family (AF_INET, AF_INET6) that a host stands for when others are told it.

    Raises: as address_to_listen_on.
    """
    return await _looked_up(host, "--advertise-addr", family)


async def _looked_up(host: str, option: str, family: int) -> str:
    try:
        found = await trio.socket.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise unavailable(f"the host of {option}, {host}", error) from None
    addresses = dict.fromkeys(
        str(address[0]) for *_, address in sorted(found, key=lambda each: each[0] != socket.AF_INET)
    )
    if ip_literal(host) is None and not Address(host, 0).is_loopback:
        dialled = [address for address in addresses if not ipaddress.ip_address(address.partition("%")[0]).is_loopback]
        if not dialled:
            raise AddressUnsuitable(
                f"the host of {option}, {host}, is {' and '.join(addresses)} on this machine (as its own name often is "
                "in /etc/hosts), which no other machine can reach: give the address that the others dial, change "
                "/etc/hosts, or say localhost if nobody else is to reach it"
            )
        return dialled[0]
    return next(iter(addresses))


def lookup_problem(error: OSError | UnicodeError) -> str:
    """Return for people why a host cannot be looked up."""
    return (isinstance(error, OSError) and error.strerror) or "it is no name that can be"
