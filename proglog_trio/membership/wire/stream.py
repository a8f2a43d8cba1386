"""Streams: the one message that each side of a TCP connection sends.

From the outside in: label (from the side that opened the connection), encryption, compression, message; every layer but
the message may be missing. This is how one is made; how one is read stands in stream_decoder.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from attrs import frozen

from proglog_trio.membership.wire.encryption import encrypt_steps
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import (
    ENCRYPTION_OVERHEAD_BYTES,
    NONCE_BYTES,
    compressed_layer_steps,
    label_header,
)
from proglog_trio.membership.wire.lzw import MAX_DECOMPRESSED_BYTES
from proglog_trio.membership.wire.memberlist import (
    Ack,
    ErrorMessage,
    MessageType,
    Ping,
    PushPull,
    PushPullHeader,
    UserMessage,
    UserMessageHeader,
    encode_message,
)
from proglog_trio.membership.wire.msgpack_structs import encode_struct
from proglog_trio.steps import Steps, joined

StreamMessage = PushPull | UserMessage | Ping | Ack | ErrorMessage
"""What a stream carries."""
ENCRYPTED_HEADER_BYTES = 5
"""The type of an encrypted message, and its length."""
NODES_AT_ONCE = 8
"""Node states in one step, which take up to 0.1 ms each."""
LARGEST_COMPRESSED_BYTES = 1024 * 1024
"""A message of more is sent as it is, which every receiver takes: packing takes up to 0.3 s a MiB."""


@frozen
class StreamLimits:
    """The most that is read from a stream.

    Attributes:
        state_bytes: of user state, and of an encrypted message.
        user_message_bytes: of a user message; what agents send has 9 KiB at the most.
        nodes: node states of a push/pull: several times those of a large cluster.
        message_bytes: of a whole message without its layers.
        compressed_bytes: of what a compressed one has on the wire.
    """

    state_bytes: int = 20 * 1024 * 1024
    nodes: int = 16_384
    message_bytes: int = MAX_DECOMPRESSED_BYTES
    compressed_bytes: int = 8 * 1024 * 1024
    user_message_bytes: int = 1024 * 1024


def encode_stream_steps(
    message: StreamMessage,
    *,
    keyring: Keyring | None = None,
    label: bytes = b"",
    from_dialler: bool = True,
    compress: bool = True,
    smallest_compressed_bytes: int = 0,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Steps[bytearray]:
    """Return, in steps, all that is sent on a connection to carry message.

    Args:
        message: what to send.
        keyring: encrypt with its primary key.
        label: of the cluster.
        from_dialler: whether this side opened the connection.
        compress: compress what has up to 1 MiB, whatever comes of it, as other members do. 64 KiB take about 6 ms.
        smallest_compressed_bytes: what has less is sent as it is, which every receiver takes.
        random_bytes: gives as many random bytes as it is asked for. A nonce must never come twice.

    Raises:
        ValueError: the message cannot be encoded, or no receiver would take it.
    """
    limits = StreamLimits()
    data: bytes | bytearray = yield from _encode_plain(message)
    if len(data) - 1 > limits.message_bytes:
        raise ValueError(f"the message has {len(data)} bytes, more than {limits.message_bytes}")
    if compress and smallest_compressed_bytes <= len(data) <= LARGEST_COMPRESSED_BYTES:
        data = yield from compressed_layer_steps(data)
    header = b""
    if keyring is not None:
        length = len(data) + ENCRYPTION_OVERHEAD_BYTES
        if length > limits.state_bytes:
            raise ValueError(f"the encrypted message has {length} bytes, more than {limits.state_bytes}")
        header = bytes((MessageType.ENCRYPT,)) + length.to_bytes(ENCRYPTED_HEADER_BYTES - 1, "big")
        nonce = random_bytes(NONCE_BYTES)
        data = yield from encrypt_steps(data, keyring=keyring, associated=header + label, nonce=nonce)
    return (yield from joined((label_header(label) if from_dialler else b"", header, data)))


def _encode_plain(message: StreamMessage) -> Steps[bytes | bytearray]:
    limits = StreamLimits()
    if isinstance(message, PushPull):
        if len(message.user_state) > limits.state_bytes or len(message.nodes) > limits.nodes:
            raise ValueError(
                f"{len(message.nodes)} nodes and {len(message.user_state)} bytes of user state are more than "
                f"{limits.nodes} and {limits.state_bytes}"
            )
        header = PushPullHeader(len(message.nodes), len(message.user_state), message.join)
        parts = [bytes((MessageType.PUSH_PULL,)), encode_struct(header)]
        for start in range(0, len(message.nodes), NODES_AT_ONCE):
            parts.append(b"".join(map(encode_struct, message.nodes[start : start + NODES_AT_ONCE])))
            yield
        return (yield from joined((*parts, message.user_state)))
    if isinstance(message, UserMessage):
        if len(message.payload) > limits.user_message_bytes:
            raise ValueError(
                f"the user message has {len(message.payload)} bytes, more than {limits.user_message_bytes}"
            )
        user_header = encode_struct(UserMessageHeader(len(message.payload)))
        return bytes((MessageType.USER,)) + user_header + message.payload
    if isinstance(message, ErrorMessage):
        return bytes((MessageType.ERR,)) + encode_struct(message)
    return encode_message(message)
