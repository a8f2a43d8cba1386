"""What packets and streams have in common around their messages: labels, compression, and the room of encryption."""

from __future__ import annotations

from attrs import frozen

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.lzw import compress_steps, decompress_steps
from proglog_trio.membership.wire.memberlist import MessageType
from proglog_trio.membership.wire.msgpack_structs import Raw, Unsigned, encode_struct, wire
from proglog_trio.steps import Steps, complete

MAX_LABEL_BYTES = 255
NONCE_BYTES = 12
TAG_BYTES = 16
ENCRYPTION_OVERHEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES
"""A byte for the version of the encryption, the nonce before what is sealed and the tag behind it."""
_ALGO_LZW = 0
_COMPRESS_PREFIX = bytes((MessageType.COMPRESS,))


def label_header(label: bytes) -> bytes:
    """Return what precedes everything else of a cluster with a label; nothing for the empty label.

    Raises:
        ValueError: the label has more than 255 bytes.
    """
    if len(label) > MAX_LABEL_BYTES:
        raise ValueError(f"the label has {len(label)} bytes, more than {MAX_LABEL_BYTES}")
    return bytes((MessageType.HAS_LABEL, len(label))) + label if label else b""


def wrong_label(label: bytes | None) -> DecodingError:
    """Return the error for traffic of another cluster.

    Args:
        label: what came, or None if there was no label.
    """
    return DecodingError("is of another cluster" if label else "is missing", "label")


@frozen
class Compressed:
    """The compress layer's body."""

    algo: int = wire("Algo", Unsigned(8))
    buf: bytes = wire("Buf", Raw())

    def decompressed_steps(self, max_bytes: int) -> Steps[bytearray]:
        """Return, in steps, what was compressed.

        Raises:
            DecodingError: it is no LZW data, or more than max_bytes.
        """
        if self.algo != _ALGO_LZW:
            raise DecodingError(f"is {self.algo}, not 0 (LZW)", "Algo")
        return (yield from decompress_steps(self.buf, max_bytes))


def compressed_layer(plain: bytes) -> bytes:
    """Return plain in a compress layer."""
    return complete(compressed_layer_steps(plain))


def compressed_layer_steps(plain: bytes | bytearray) -> Steps[bytes]:
    """Do as compressed_layer, in steps."""
    compressed = yield from compress_steps(plain)
    return _COMPRESS_PREFIX + encode_struct(Compressed(_ALGO_LZW, compressed))
