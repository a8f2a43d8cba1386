"""Addresses on the wire: 4 raw bytes for IPv4, 16 for IPv6."""

from __future__ import annotations

import ipaddress

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_structs import Raw

ADDRESS = Raw(lengths=(4, 16))
ADDRESS_OR_NONE = Raw(lengths=(0, 4, 16))


def pack_address(host: str) -> bytes:
    """Return the bytes of a numeric address; an IPv4 address written as IPv6 becomes 4 bytes.

    Raises:
        ValueError: it is no numeric address.
    """
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.packed
    return address.packed


def unpack_address(data: bytes) -> str:
    """Return the numeric address of 4 or 16 bytes; IPv4 in 16 bytes becomes IPv4.

    Raises:
        DecodingError: there are not 4 or 16 bytes.
    """
    if len(data) not in (4, 16):
        raise DecodingError(f"has {len(data)} bytes, not 4 or 16", "address")
    address = ipaddress.ip_address(data)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
