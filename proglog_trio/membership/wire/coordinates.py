"""Serf's network coordinates, as the payload of an ack carries them.

How they are computed (Vivaldi; Dabek et al., 2004) is no matter of the codec.
"""

from __future__ import annotations

from attrs import frozen

from proglog_trio.membership.wire.addresses import ADDRESS_OR_NONE
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_structs import Floating, Sequence, decode_struct, encode_struct, wire

_PING_VERSION = 1


@frozen
class Coordinate:
    """A place whose distance to another estimates the round-trip time between them, in seconds.

    Attributes:
        vec: where it is, in 8 dimensions.
        error: how much it is to be trusted: from 0, of which nothing is known to be wrong, to 1.5.
        adjustment: what is to be added to a distance, for what the other figures cannot say.
        height: the way from the place itself to the network that all share.
    """

    vec: tuple[float, ...] = wire("Vec", Sequence(Floating()))
    error: float = wire("Error", Floating())
    adjustment: float = wire("Adjustment", Floating())
    height: float = wire("Height", Floating())


@frozen
class _SeenCoordinate(Coordinate):
    """A coordinate, and where the one that asked is seen; agents pass over what they do not know."""

    seen_addr: bytes = wire("SeenAddr", ADDRESS_OR_NONE)


def encode_seen_payload(coordinate: Coordinate, seen: bytes) -> bytes:
    """Return the payload of an ack that also says at which address, of 4 or 16 bytes, the one that pinged is seen."""
    told = _SeenCoordinate(coordinate.vec, coordinate.error, coordinate.adjustment, coordinate.height, seen)
    return bytes((_PING_VERSION,)) + encode_struct(told)


def decode_seen_payload(payload: bytes) -> bytes:
    """Return the address at which the payload of an ack says that this node is seen; empty: it does not say.

    Raises:
        DecodingError: it is malformed.
    """
    if not payload or payload[0] != _PING_VERSION:
        return b""
    try:
        return decode_struct(_SeenCoordinate, payload, 1)[0].seen_addr
    except DecodingError as error:
        raise error.within("coordinate") from None


def encode_ack_payload(coordinate: Coordinate) -> bytes:
    """Return the payload of an ack from a node at coordinate."""
    return bytes((_PING_VERSION,)) + encode_struct(coordinate)


def decode_ack_payload(payload: bytes) -> Coordinate | None:
    """Return the coordinate in the payload of an ack; None if it has none, or one in a form of another version.

    Raises:
        DecodingError: it is malformed.
    """
    if not payload or payload[0] != _PING_VERSION:
        return None
    try:
        return decode_struct(Coordinate, payload, 1)[0]
    except DecodingError as error:
        raise error.within("coordinate") from None
