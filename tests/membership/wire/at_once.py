"""What the wire does in steps, done at once."""

from __future__ import annotations

from typing import Any

from proglog_trio.membership.wire.encryption import decrypt_steps
from proglog_trio.membership.wire.lzw import MAX_DECOMPRESSED_BYTES, compress_steps, decompress_steps
from proglog_trio.membership.wire.packet import DecodedPacket, decode_packet_steps
from proglog_trio.membership.wire.stream import StreamMessage, encode_stream_steps
from proglog_trio.steps import complete


def compress(data: bytes) -> bytes:
    return complete(compress_steps(data))


def decompress(data: bytes, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> bytes:
    return bytes(complete(decompress_steps(data, max_bytes)))


def decrypt(data: bytes, **options: Any) -> bytes:
    return bytes(complete(decrypt_steps(data, **options)))


def decode_packet(data: bytes, **options: Any) -> DecodedPacket:
    return complete(decode_packet_steps(data, **options))


def encode_stream(message: StreamMessage, **options: Any) -> bytes:
    return bytes(complete(encode_stream_steps(message, **options)))
