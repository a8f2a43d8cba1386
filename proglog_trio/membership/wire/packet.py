"""Packets: what one UDP datagram holds.

From the outside in: label, encryption, checksum, compression, compound, message; every layer but the message may be
missing, and each is there once at most and in this order, which is what other members send: nothing can be nested
without end.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable

from attrs import evolve, frozen

from proglog_trio.membership.wire.encryption import begins_as_encrypted, decrypt_steps, encrypt
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import (
    ENCRYPTION_OVERHEAD_BYTES,
    NONCE_BYTES,
    Compressed,
    compressed_layer,
    label_header,
    wrong_label,
)
from proglog_trio.membership.wire.memberlist import Message, MessageType, decode_message, encode_message
from proglog_trio.membership.wire.msgpack_structs import decode_struct
from proglog_trio.steps import Steps

DEFAULT_PACKET_BYTES = 1400
MAX_DATAGRAM_BYTES = 65_507
"""What UDP over IPv4 can carry."""
MAX_DECOMPRESSED_PACKET_BYTES = 64 * 1024
"""A sender compresses what would have been a datagram itself. More than this is a bomb, not a packet."""
MAX_COMPOUND_MESSAGES = 255
COMPOUND_HEADER_BYTES = 2
COMPOUND_MESSAGE_BYTES = 2
"""What each message of a compound packet takes beside itself."""
CHECKSUM_BYTES = 5
_WORTH_COMPRESSING_BYTES = 96
"""Below this, LZW saves less than its layer takes."""


@frozen
class DecodedPacket:
    """What was in a packet.

    Attributes:
        messages: those that could be read, in their order.
        errors: what was wrong with the others.
        was_plain: it was not encrypted, although there is a keyring.
    """

    messages: tuple[Message, ...]
    errors: tuple[DecodingError, ...] = ()
    was_plain: bool = False


def decode_packet_steps(
    data: bytes,
    *,
    keyring: Keyring | None = None,
    label: bytes = b"",
    verify: bool = True,
    max_decompressed_bytes: int = MAX_DECOMPRESSED_PACKET_BYTES,
    decode: Callable[[bytes], Message] = decode_message,
) -> Steps[DecodedPacket]:
    """Return, in steps, the messages of a packet.

    A message of a compound packet that is malformed or of an unknown type costs only itself.

    Args:
        data: the datagram.
        keyring: with one, packets that are not encrypted are refused.
        label: of the cluster; packets with another, or none, are refused, and so are packets with one if this is empty.
        verify: False: with a keyring, what is not encrypted is taken too.
        max_decompressed_bytes: the most that a compressed packet may hold.
        decode: reads a message, as decode_message does.

    Raises:
        DecodingError: nothing of the packet can be read.
    """
    try:
        data = _without_label(data, label)
        if keyring is None:
            return (yield from _decode_plain(data, max_decompressed_bytes, decode))
        try:
            plain = bytes((yield from decrypt_steps(data, keyring=keyring, associated=label)))
        except DecodingError as error:
            if verify:
                raise
            refusal = error
        else:
            return (yield from _decode_plain(plain, max_decompressed_bytes, decode))
        # The versions of encryption are types of messages too (ping, indirectPing): what cannot be decrypted is one of
        # these, or encrypted with another key.
        try:
            decoded = yield from _decode_plain(data, max_decompressed_bytes, decode)
        except DecodingError as error:
            raise (refusal if begins_as_encrypted(data) else error) from None
        return evolve(decoded, was_plain=True)
    except DecodingError as error:
        raise error.within("packet") from None


def _decode_plain(data: bytes, max_decompressed_bytes: int, decode: Callable[[bytes], Message]) -> Steps[DecodedPacket]:
    if data[:1] == bytes((MessageType.HAS_CRC,)):
        data = _checked(data)
    if data[:1] == bytes((MessageType.COMPRESS,)):
        data = yield from _decompressed(data, max_decompressed_bytes)
    if data[:1] == bytes((MessageType.COMPOUND,)):
        return (yield from _decode_compound(data, decode))
    return DecodedPacket((decode(data),))


def _without_label(data: bytes, label: bytes) -> bytes:
    if data[:1] != bytes((MessageType.HAS_LABEL,)):
        if label:
            raise wrong_label(None)
        return data
    length = data[1] if len(data) > 1 else 0
    if not 0 < length <= len(data) - 2:
        raise DecodingError("is empty or cut off", "label")
    if data[2 : 2 + length] != label:
        raise wrong_label(data[2 : 2 + length])
    return data[2 + length :]


def _checked(data: bytes) -> bytes:
    rest = data[CHECKSUM_BYTES:]
    if len(data) < CHECKSUM_BYTES or zlib.crc32(rest) != int.from_bytes(data[1:CHECKSUM_BYTES], "big"):
        raise DecodingError("does not match its checksum")
    return rest


def _decompressed(data: bytes, max_bytes: int) -> Steps[bytes]:
    try:
        return bytes((yield from decode_struct(Compressed, data, 1)[0].decompressed_steps(max_bytes)))
    except DecodingError as error:
        raise error.within("compressed part") from None


def _decode_compound(data: bytes, decode: Callable[[bytes], Message]) -> Steps[DecodedPacket]:
    count = data[1] if len(data) > 1 else 0
    start = COMPOUND_HEADER_BYTES + COMPOUND_MESSAGE_BYTES * count
    if len(data) < max(start, COMPOUND_HEADER_BYTES):
        raise DecodingError(f"is cut off after {len(data)} bytes, in the lengths of its messages", "compound")
    messages = []
    errors = []
    for number in range(1, count + 1):
        place = COMPOUND_HEADER_BYTES + COMPOUND_MESSAGE_BYTES * (number - 1)
        end = start + int.from_bytes(data[place : place + COMPOUND_MESSAGE_BYTES], "big")
        try:
            if end > len(data):
                raise DecodingError(f"is cut off after {max(len(data) - start, 0)} of {end - start} bytes")
            messages.append(decode(data[start:end]))
        except DecodingError as error:
            errors.append(error.within("packet", f"part {number} of {count}"))
        start = end
        yield
    return DecodedPacket(tuple(messages), tuple(errors))


def packet_overhead(*, keyring: Keyring | None = None, label: bytes = b"", checksum: bool = False) -> int:
    """Return how many bytes of a packet its layers take, but for those of a compound message."""
    return (
        len(label_header(label))
        + (ENCRYPTION_OVERHEAD_BYTES if keyring is not None else 0)
        + (CHECKSUM_BYTES if checksum else 0)
    )


def encode_packets(
    messages: Iterable[Message | bytes],
    *,
    max_bytes: int = DEFAULT_PACKET_BYTES,
    keyring: Keyring | None = None,
    label: bytes = b"",
    checksum: bool = False,
    compress: bool = True,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> list[bytes]:
    """Return packets that hold messages in their order, as many in each as fit.

    Args:
        messages: messages, or what encode_message made of them.
        max_bytes: the size of a packet; a message that does not fit gets a larger one of its own. What
            compression may save is not counted on.
        keyring: encrypt with its primary key.
        label: of the cluster.
        checksum: add one; for receivers whose Vsn has a pmax of 5 or more.
        compress: compress what gets smaller by it.
        random_bytes: gives as many random bytes as it is asked for. A nonce must never come twice.

    Raises:
        ValueError: a message cannot be encoded, or is larger than any datagram.
    """
    room = min(max_bytes, MAX_DATAGRAM_BYTES) - packet_overhead(keyring=keyring, label=label, checksum=checksum)
    packets = []
    parts: list[bytes] = []
    size = COMPOUND_HEADER_BYTES
    for message in messages:
        part = message if isinstance(message, bytes) else encode_message(message)
        part_size = COMPOUND_MESSAGE_BYTES + len(part)
        if parts and (size + part_size > room or len(parts) == MAX_COMPOUND_MESSAGES):
            packets.append(_plain_packet(parts))
            parts = []
            size = COMPOUND_HEADER_BYTES
        parts.append(part)
        size += part_size
    if parts:
        packets.append(_plain_packet(parts))
    return [
        _layered(packet, keyring=keyring, label=label, checksum=checksum, compress=compress, random_bytes=random_bytes)
        for packet in packets
    ]


def _plain_packet(parts: list[bytes]) -> bytes:
    if len(parts) == 1:
        return parts[0]
    lengths = b"".join(len(part).to_bytes(COMPOUND_MESSAGE_BYTES, "big") for part in parts)
    return b"".join((bytes((MessageType.COMPOUND, len(parts))), lengths, *parts))


def _layered(
    packet: bytes,
    *,
    keyring: Keyring | None,
    label: bytes,
    checksum: bool,
    compress: bool,
    random_bytes: Callable[[int], bytes],
) -> bytes:
    if compress and len(packet) >= _WORTH_COMPRESSING_BYTES:
        smaller = compressed_layer(packet)
        if len(smaller) < len(packet):
            packet = smaller
    if checksum:
        packet = bytes((MessageType.HAS_CRC,)) + zlib.crc32(packet).to_bytes(4, "big") + packet
    if keyring is not None:
        packet = encrypt(packet, keyring=keyring, associated=label, nonce=random_bytes(NONCE_BYTES))
    packet = label_header(label) + packet
    if len(packet) > MAX_DATAGRAM_BYTES:
        raise ValueError(f"a message makes a packet of {len(packet)} bytes, more than {MAX_DATAGRAM_BYTES}")
    return packet
