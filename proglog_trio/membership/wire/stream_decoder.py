"""Reading streams: a decoder is fed what arrives, and gives the message once it is whole.

Every length and count is held against its limit when it is read, before anything of that size is waited for.

An encrypted or compressed message is decoded when its last byte has arrived, however few they were: what 50 kB hold can
take seconds. So all of it is done in steps, and each of them is short.
"""

from __future__ import annotations

import contextlib

from proglog_trio.membership.wire.byte_source import ByteSource, Parser, Pause, stepping
from proglog_trio.membership.wire.encryption import decrypt_steps
from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import Compressed, label_header, wrong_label
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
    type_name,
)
from proglog_trio.membership.wire.msgpack_structs import from_map
from proglog_trio.membership.wire.stream import ENCRYPTED_HEADER_BYTES, NODES_AT_ONCE, StreamLimits, StreamMessage
from proglog_trio.steps import Steps, complete

_SMALL_STRUCT_BYTES = 64 * 1024
"""Room for a header, a ping, an ack or an error, and for keys of newer versions."""
_NODE_STATE_BYTES = 16 * 1024
"""Room for one node state, likewise."""


class StreamDecoder:
    """Reads the one message in the bytes of one direction of a connection."""

    def __init__(
        self,
        *,
        keyring: Keyring | None = None,
        label: bytes = b"",
        from_dialler: bool = True,
        verify: bool = True,
        limits: StreamLimits | None = None,
    ) -> None:
        """Begin with a new connection.

        Args:
            keyring: with one, a message that is not encrypted is refused.
            label: of the cluster; a stream with another, or none, is refused.
            from_dialler: whether the bytes come from the side that opened the connection, which sends the label.
            verify: False: with a keyring, a message that is not encrypted is taken too.
            limits: the protocol's, if there are none.
        """
        self._keyring = keyring
        self._label = label
        self._from_dialler = from_dialler
        self._verify = verify
        self._was_plain = False
        self._limits = limits or StreamLimits()
        # one byte for the type is no part of what a limit counts
        room = 1 + max(self._limits.message_bytes, self._limits.state_bytes)
        self._source = ByteSource(room=room + len(label_header(label)) + ENCRYPTED_HEADER_BYTES)
        self._parser = self._outermost()
        self._message: StreamMessage | None = None
        self._error: DecodingError | None = None

    @property
    def was_plain(self) -> bool:
        """Whether the message is not encrypted, although there is a keyring."""
        return self._was_plain

    @property
    def buffered_bytes(self) -> int:
        """How many bytes are held. At most what the part being waited for needs, and what was fed last."""
        return self._source.held

    def feed(self, data: bytes) -> StreamMessage | None:
        """Read bytes that have arrived; return the message once it is whole, and None before.

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
                while next(self._parser) is Pause.STEP:
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
        """Say that no more bytes come.

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

    def _outermost(self) -> Parser[StreamMessage]:
        source = self._source
        number = (yield from source.read(1))[0]
        if self._from_dialler:
            if number == MessageType.HAS_LABEL:
                length = (yield from source.read(1))[0]
                if length != len(self._label) or not length:
                    raise wrong_label(b"other")
                label = yield from source.read(length)
                if label != self._label:
                    raise wrong_label(label)
                number = (yield from source.read(1))[0]
            elif self._label:
                raise wrong_label(None)
        if number == MessageType.ENCRYPT:
            if self._keyring is None:
                raise NotDecrypted("is encrypted, and there is no keyring")
            length_bytes = yield from source.read(ENCRYPTED_HEADER_BYTES - 1)
            length = int.from_bytes(length_bytes, "big")
            if length > self._limits.state_bytes:
                raise DecodingError(f"has {length} bytes, more than {self._limits.state_bytes}", "encrypted part")
            sealed = yield from source.read_long(length)
            associated = bytes((MessageType.ENCRYPT,)) + length_bytes + self._label
            plain = yield from stepping(decrypt_steps(sealed, keyring=self._keyring, associated=associated))
            return (yield from self._whole(plain, "encrypted part"))
        if self._keyring is not None:
            if self._verify:
                raise NotDecrypted(f"is not encrypted: it begins with a {type_name(number)}")
            self._was_plain = True
        return (yield from self._after_encryption(source, number))

    def _after_encryption(self, source: ByteSource, number: int) -> Parser[StreamMessage]:
        if number != MessageType.COMPRESS:
            return (yield from self._message_of_type(source, number))
        limit = self._limits.message_bytes
        try:
            compressed = yield from source.struct(Compressed, self._limits.compressed_bytes)
            plain = yield from stepping(compressed.decompressed_steps(limit))
        except DecodingError as error:
            raise error.within("compressed part") from None
        return (yield from self._whole(plain, "compressed part", compressible=False))

    def _whole(self, plain: bytes | bytearray, where: str, *, compressible: bool = True) -> Parser[StreamMessage]:
        """Return the message in plain, in which nothing can be missing."""
        if not plain:
            raise DecodingError("holds no bytes", where)
        source = ByteSource(plain, room=len(plain) - 1, start=1)
        parser = (self._after_encryption if compressible else self._message_of_type)(source, plain[0])
        try:
            while next(parser) is Pause.STEP:
                yield Pause.STEP
        except StopIteration as result:
            message: StreamMessage = result.value
            return message
        except DecodingError as error:
            raise error.within(where) from None
        raise DecodingError(f"is cut off after {len(plain)} bytes", where)

    def _message_of_type(self, source: ByteSource, number: int) -> Parser[StreamMessage]:
        try:
            if number == MessageType.PUSH_PULL:
                return (yield from self._push_pull(source))
            if number == MessageType.USER:
                header = yield from source.struct(UserMessageHeader, _SMALL_STRUCT_BYTES)
                self._check_limit("UserMsgLen", header.user_msg_len, self._limits.user_message_bytes)
                return UserMessage((yield from source.read(header.user_msg_len)))
            if number == MessageType.PING:
                return (yield from source.struct(Ping, _SMALL_STRUCT_BYTES))
            if number == MessageType.ACK_RESP:
                return (yield from source.struct(Ack, _SMALL_STRUCT_BYTES))
            if number == MessageType.ERR:
                return (yield from source.struct(ErrorMessage, _SMALL_STRUCT_BYTES))
            raise DecodingError("is none that a stream can carry here")
        except DecodingError as error:
            raise error.within(type_name(number)) from None

    def _push_pull(self, source: ByteSource) -> Parser[PushPull]:
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
            if number % NODES_AT_ONCE == 0:
                yield Pause.STEP
        try:
            user_state = yield from source.read_long(header.user_state_len)
        except DecodingError as error:
            raise error.within("user state") from None
        return PushPull(tuple(nodes), user_state, header.join, refused=header.nodes - len(nodes))

    @staticmethod
    def _check_limit(name: str, value: int, limit: int) -> None:
        if value > limit:
            raise DecodingError(f"is {value}, more than {limit}", name)
