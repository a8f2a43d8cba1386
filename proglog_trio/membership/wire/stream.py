"""Streams: the one message that each side of a TCP connection sends.

From the outside in: label (from the side that opened the connection), encryption, compression, message; every layer but
the message may be missing. A decoder is fed what arrives, and every length and count is held against its limit when it
is read, before anything of that size is waited for.

An encrypted or compressed message is decoded when its last byte has arrived, however few they were: what 50 kB hold can
take seconds. So all of it is done in steps, and each of them is short.
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Callable, Generator
from typing import TypeVar

from attrs import AttrsInstance, frozen

from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import (
    ENCRYPTION_OVERHEAD_BYTES,
    NONCE_BYTES,
    Compressed,
    compressed_layer_steps,
    decrypt_steps,
    encrypt_steps,
    label_header,
    wrong_label,
)
from proglog_trio.membership.wire.lzw import MAX_DECOMPRESSED_BYTES
from proglog_trio.membership.wire.memberlist import (
    Ack,
    ErrorMessage,
    MessageType,
    NodeState,
    Ping,
    PushPull,
    PushPullHeader,
    UserMessage,
    UserMessageHeader,
    encode_message,
    type_name,
)
from proglog_trio.membership.wire.msgpack_extent import Extent, unpack
from proglog_trio.membership.wire.msgpack_structs import encode_struct, from_map
from proglog_trio.steps import Steps, complete, joined

StreamMessage = PushPull | UserMessage | Ping | Ack | ErrorMessage
"""What a stream carries."""

_ENCRYPTED_HEADER_BYTES = 5
_SMALL_STRUCT_BYTES = 64 * 1024
"""Room for a header, a ping, an ack or an error, and for keys of newer versions."""
_NODE_STATE_BYTES = 16 * 1024
"""Room for one node state, likewise."""

_Struct = TypeVar("_Struct", bound=AttrsInstance)
_Result = TypeVar("_Result")


class _Pause(enum.Enum):
    """Why a parser yields: it needs more bytes, or has been at it for a while."""

    BYTES = enum.auto()
    STEP = enum.auto()


_Parser = Generator[_Pause, None, _Result]
_NODES_AT_ONCE = 8
"""Node states in one step, which take up to 0.1 ms each."""
LARGEST_COMPRESSED_BYTES = 1024 * 1024
"""A message of more is sent as it is, which every receiver takes: packing takes up to 0.3 s a MiB."""


def _stepping(steps: Steps[_Result]) -> _Parser[_Result]:
    """Return a parser that does work in steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result
        yield _Pause.STEP


@frozen
class StreamLimits:
    """The most that is taken from a stream.

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


class _Source:
    """Bytes that are taken from the front, as they arrive or all there.

    Attributes:
        room: how many bytes may still be taken.
    """

    def __init__(self, whole: bytes | bytearray | None = None, *, room: int, start: int = 0) -> None:
        """Begin with all that there will ever be, from a place in it on, or with nothing."""
        self._buffer = bytearray()
        # What is there already is not copied: it may have many MiB.
        self._data: bytes | bytearray = self._buffer if whole is None else whole
        self._start = start
        self.room = room
        self.taken = 0

    @property
    def held(self) -> int:
        return len(self._data) - self._start

    def add(self, data: bytes) -> None:
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data

    def clear(self) -> None:
        self._buffer.clear()
        self._start = 0

    def take(self, count: int) -> _Parser[bytes]:
        """Take count bytes."""
        if count > self.room:
            raise DecodingError(f"needs {count} bytes, there can be {self.room}")
        while self.held < count:
            yield _Pause.BYTES
        data = bytes(self._data[self._start : self._start + count])
        self._drop(count)
        return data

    def take_long(self, count: int) -> _Parser[bytearray]:
        """Take count bytes, which may be many."""
        if count > self.room:
            raise DecodingError(f"needs {count} bytes, there can be {self.room}")
        while self.held < count:
            yield _Pause.BYTES
        with memoryview(self._data) as view:
            data = yield from _stepping(joined((view[self._start : self._start + count],)))
        self._drop(count)
        return data

    def struct(self, struct: type[_Struct], max_bytes: int) -> _Parser[_Struct]:
        """Take a struct that may have max_bytes."""
        return from_map(struct, (yield from self.object(max_bytes)))

    def object(self, max_bytes: int) -> _Parser[object]:
        """Take an object of msgpack that may have max_bytes."""
        extent = Extent(min(max_bytes, self.room))
        while not extent.advance(self._data, self._start):
            yield _Pause.BYTES
        value: object = unpack(self._data, self._start, extent.length)
        self._drop(extent.length)
        return value

    def _drop(self, count: int) -> None:
        self._start += count
        self.taken += count
        self.room -= count


class StreamDecoder:
    """Takes the bytes of one direction of a connection and gives the message in them."""

    def __init__(
        self,
        *,
        keyring: Keyring | None = None,
        label: bytes = b"",
        from_dialler: bool = True,
        limits: StreamLimits | None = None,
    ) -> None:
        """Begin with a new connection.

        Args:
            keyring: with one, a message that is not encrypted is refused.
            label: of the cluster; a stream with another, or none, is refused.
            from_dialler: whether the bytes come from the side that opened the connection, which sends the label.
            limits: the protocol's, if there are none.
        """
        self._keyring = keyring
        self._label = label
        self._from_dialler = from_dialler
        self._limits = limits or StreamLimits()
        # one byte for the type is no part of what a limit counts
        room = 1 + max(self._limits.message_bytes, self._limits.state_bytes)
        self._source = _Source(room=room + len(label_header(label)) + _ENCRYPTED_HEADER_BYTES)
        self._parser = self._outermost()
        self._message: StreamMessage | None = None
        self._error: DecodingError | None = None

    @property
    def buffered_bytes(self) -> int:
        """How many bytes are held. At most what the part being waited for needs, and what was fed last."""
        return self._source.held

    def feed(self, data: bytes) -> StreamMessage | None:
        """Take bytes that have arrived; return the message once it is whole, and None before.

        A stream holds one message: what comes after it is dropped.

        Raises:
            DecodingError: it is malformed or above a limit. Feeding more raises the same.
        """
        return complete(self.feed_steps(data))

    def feed_steps(self, data: bytes) -> Steps[StreamMessage | None]:
        """Do as feed, in steps; nothing else may be done to the decoder before they are all done."""
        if self._error is not None:
            raise self._error
        if self._message is None:
            self._source.add(data)
            try:
                while next(self._parser) is _Pause.STEP:
                    yield
            except StopIteration as result:
                self._message = result.value
                self._source.clear()
            except DecodingError as error:
                self._error = error.within("stream")
                self._source.clear()
                raise self._error from None
        return self._message

    def end(self) -> None:
        """Take notice that no more bytes come.

        Raises:
            DecodingError: the message is not whole.
        """
        if self._error is not None:
            raise self._error
        if self._message is None:
            received = self._source.taken + self._source.held
            self._error = DecodingError(f"ended after {received} bytes, before its message was whole", "stream")
            self._source.clear()
            raise self._error

    def _outermost(self) -> _Parser[StreamMessage]:
        source = self._source
        number = (yield from source.take(1))[0]
        if self._from_dialler:
            if number == MessageType.HAS_LABEL:
                length = (yield from source.take(1))[0]
                if length != len(self._label) or not length:
                    raise wrong_label(b"other")
                label = yield from source.take(length)
                if label != self._label:
                    raise wrong_label(label)
                number = (yield from source.take(1))[0]
            elif self._label:
                raise wrong_label(None)
        if number == MessageType.ENCRYPT:
            if self._keyring is None:
                raise NotDecrypted("is encrypted, and there is no keyring")
            length_bytes = yield from source.take(_ENCRYPTED_HEADER_BYTES - 1)
            length = int.from_bytes(length_bytes, "big")
            if length > self._limits.state_bytes:
                raise DecodingError(f"has {length} bytes, more than {self._limits.state_bytes}", "encrypted part")
            sealed = yield from source.take_long(length)
            associated = bytes((MessageType.ENCRYPT,)) + length_bytes + self._label
            plain = yield from _stepping(decrypt_steps(sealed, keyring=self._keyring, associated=associated))
            return (yield from self._whole(plain, "encrypted part"))
        if self._keyring is not None:
            raise NotDecrypted(f"is not encrypted: it begins with a {type_name(number)}")
        return (yield from self._after_encryption(source, number))

    def _after_encryption(self, source: _Source, number: int) -> _Parser[StreamMessage]:
        if number != MessageType.COMPRESS:
            return (yield from self._message_of_type(source, number))
        limit = self._limits.message_bytes
        try:
            compressed = yield from source.struct(Compressed, self._limits.compressed_bytes)
            plain = yield from _stepping(compressed.decompressed_steps(limit))
        except DecodingError as error:
            raise error.within("compressed part") from None
        return (yield from self._whole(plain, "compressed part", compressible=False))

    def _whole(self, plain: bytes | bytearray, where: str, *, compressible: bool = True) -> _Parser[StreamMessage]:
        """Return the message in plain, in which nothing can be missing."""
        if not plain:
            raise DecodingError("holds no bytes", where)
        source = _Source(plain, room=len(plain) - 1, start=1)
        parser = (self._after_encryption if compressible else self._message_of_type)(source, plain[0])
        try:
            while next(parser) is _Pause.STEP:
                yield _Pause.STEP
        except StopIteration as result:
            message: StreamMessage = result.value
            return message
        except DecodingError as error:
            raise error.within(where) from None
        raise DecodingError(f"is cut off after {len(plain)} bytes", where)

    def _message_of_type(self, source: _Source, number: int) -> _Parser[StreamMessage]:
        try:
            if number == MessageType.PUSH_PULL:
                return (yield from self._push_pull(source))
            if number == MessageType.USER:
                header = yield from source.struct(UserMessageHeader, _SMALL_STRUCT_BYTES)
                self._check_limit("UserMsgLen", header.user_msg_len, self._limits.user_message_bytes)
                return UserMessage((yield from source.take(header.user_msg_len)))
            if number == MessageType.PING:
                return (yield from source.struct(Ping, _SMALL_STRUCT_BYTES))
            if number == MessageType.ACK_RESP:
                return (yield from source.struct(Ack, _SMALL_STRUCT_BYTES))
            if number == MessageType.ERR:
                return (yield from source.struct(ErrorMessage, _SMALL_STRUCT_BYTES))
            raise DecodingError("is none that a stream can carry here")
        except DecodingError as error:
            raise error.within(type_name(number)) from None

    def _push_pull(self, source: _Source) -> _Parser[PushPull]:
        header = yield from source.struct(PushPullHeader, _SMALL_STRUCT_BYTES)
        self._check_limit("Nodes", header.nodes, self._limits.nodes)
        self._check_limit("UserStateLen", header.user_state_len, self._limits.state_bytes)
        if header.nodes + header.user_state_len > source.room:
            raise DecodingError(
                f"announces {header.nodes} nodes and {header.user_state_len} bytes, there can be {source.room} bytes"
            )
        nodes = []
        for number in range(1, header.nodes + 1):
            try:
                value = yield from source.object(_NODE_STATE_BYTES)
            except DecodingError as error:
                raise error.within(f"node state {number} of {header.nodes}") from None
            # One odd member, which others take, must not hide all the others: it is left out alone.
            with contextlib.suppress(DecodingError):
                nodes.append(from_map(NodeState, value))
            if number % _NODES_AT_ONCE == 0:
                yield _Pause.STEP
        try:
            user_state = yield from source.take_long(header.user_state_len)
        except DecodingError as error:
            raise error.within("user state") from None
        return PushPull(tuple(nodes), user_state, header.join, refused=header.nodes - len(nodes))

    @staticmethod
    def _check_limit(name: str, value: int, limit: int) -> None:
        if value > limit:
            raise DecodingError(f"is {value}, more than {limit}", name)


def encode_stream(
    message: StreamMessage,
    *,
    keyring: Keyring | None = None,
    label: bytes = b"",
    from_dialler: bool = True,
    compress: bool = True,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> bytes:
    """Return all that is sent on a connection to carry message.

    Args:
        message: what to send.
        keyring: encrypt with its primary key.
        label: of the cluster.
        from_dialler: whether this side opened the connection.
        compress: compress what has up to 1 MiB, whatever comes of it, as other members do. 64 KiB take about 6 ms.
        random_bytes: gives as many random bytes as it is asked for. A nonce must never come twice.

    Raises:
        ValueError: the message cannot be encoded, or no receiver would take it.
    """
    steps = encode_stream_steps(
        message, keyring=keyring, label=label, from_dialler=from_dialler, compress=compress, random_bytes=random_bytes
    )
    return bytes(complete(steps))


def encode_stream_steps(
    message: StreamMessage,
    *,
    keyring: Keyring | None = None,
    label: bytes = b"",
    from_dialler: bool = True,
    compress: bool = True,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Steps[bytearray]:
    """Do as encode_stream, in steps."""
    limits = StreamLimits()
    data: bytes | bytearray = yield from _encode_plain(message)
    if len(data) - 1 > limits.message_bytes:
        raise ValueError(f"the message has {len(data)} bytes, more than {limits.message_bytes}")
    if compress and len(data) <= LARGEST_COMPRESSED_BYTES:
        data = yield from compressed_layer_steps(data)
    header = b""
    if keyring is not None:
        length = len(data) + ENCRYPTION_OVERHEAD_BYTES
        if length > limits.state_bytes:
            raise ValueError(f"the encrypted message has {length} bytes, more than {limits.state_bytes}")
        header = bytes((MessageType.ENCRYPT,)) + length.to_bytes(_ENCRYPTED_HEADER_BYTES - 1, "big")
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
        for start in range(0, len(message.nodes), _NODES_AT_ONCE):
            parts.append(b"".join(map(encode_struct, message.nodes[start : start + _NODES_AT_ONCE])))
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
