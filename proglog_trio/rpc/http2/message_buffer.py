"""What a stream has received and its reader has not: whole gRPC messages are cut from it, and nothing else.

gRPC over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md) puts one byte (compressed or not) and a length of 32 bits, big endian, in
front of each message. grpclib's own buffer believes that length, up to 4 GiB, and fails an assertion when a message is
cut off; this one checks the prefix before it waits for the message, so every reader of a stream is protected, whichever
service it belongs to.

Flow control: bytes are given back to the sender's window when a reader takes them, or when a reader waits for more than
is here. So what is held for a stream, and what its sender may still send, is at most one window plus what is here of a
message that is being waited for (below the limit).
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections import deque
from collections.abc import Callable

from grpclib.const import Status
from grpclib.exceptions import GRPCError

PREFIX_BYTES = 5
MAX_MESSAGES = 500
"""Returned at once: handling more of them at a stretch would keep the event loop from everything else."""
_PREFIX = struct.Struct(">BI")


def prefixed(message: bytes) -> bytes:
    """Return a message with its length prefix, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


def message_prefix(length: int) -> bytes:
    """Return the prefix of an uncompressed message of this many bytes."""
    return _PREFIX.pack(0, length)


class MessageBuffer:
    """The received bytes of one stream; takes the place of grpclib.protocol.Buffer.

    Args:
        acknowledge: gives this many bytes back to the sender's flow-control window.
        limit: the longest message accepted, in bytes.
        compressed_status: what a compressed message is answered with: UNIMPLEMENTED at a server, INTERNAL at a client
            (grpc/doc/statuscodes.md).
        refused: called once for each message that is refused, before the error is raised.
    """

    def __init__(
        self,
        acknowledge: Callable[[int], None],
        limit: int,
        compressed_status: Status,
        refused: Callable[[], None],
    ) -> None:
        self._acknowledge = acknowledge
        self._limit = limit
        self._compressed_status = compressed_status
        self._refused = refused
        # None is empty, and all bytes from _start in the first one on are unread: _size of them.
        self._chunks: deque[bytes] = deque()
        self._start = 0
        self._size = 0
        # By the read that is under way, or the last one: what that cost besides copying its messages.
        self.joined_bytes = 0
        # How many of the unread bytes, the last ones, still have to be given back to the window.
        self._unacknowledged = 0
        self._ended = False
        # The one reader that waits, until _wanted bytes are here.
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0
        # Whether read comes to a prefix next, and not to the message behind one.
        self._at_prefix = True

    # -- what the HTTP/2 side calls

    def add(self, data: bytes, ack_size: int) -> None:
        """Append one DATA frame's data; ack_size is what it used of the window, its padding included."""
        # What a reader waits for is given back at once, since a message may be longer than the window. What comes
        # behind it is not, even where the reader has had no turn yet.
        early = 0 if self._waiter is None else max(0, min(len(data), self._wanted - self._size))
        if data:
            self._chunks.append(data)
            self._size += len(data)
        self._unacknowledged += len(data) - early
        # No reader will ever consume the padding.
        if due := early + ack_size - len(data):
            self._acknowledge(due)
        if self._waiter is not None and self._size >= self._wanted:
            self._wake()

    def eof(self) -> None:
        """Let readers have what is here and then the end: the sender has ended the stream."""
        self._ended = True
        self._wake()

    def unacked_size(self) -> int:
        """Drop what is here, and return how many bytes of it still have to be given back to the window."""
        remaining, self._unacknowledged = self._unacknowledged, 0
        self._chunks.clear()
        self._start = self._size = 0
        return remaining

    # -- what readers call

    async def read(self, size: int) -> bytes:
        """Return size bytes, the way grpclib asks: a prefix, its message, the next prefix.

        Returns:
            The bytes; b"" for a prefix when the stream has ended.

        Raises:
            GRPCError: the message is compressed, too long, or cut off by the end of the stream.
        """
        if self._at_prefix:
            prefix = await self._read(size, "the length prefix of a message")
            if prefix:
                self._check_prefix(prefix)
                self._at_prefix = False
            return prefix
        message = await self._read(size, "a message") if size else b""
        self._at_prefix = True
        return message

    @property
    def has_message(self) -> bool:
        """Whether a whole message is here, so that reading one does not wait."""
        if self._size < PREFIX_BYTES:
            return False
        return self._size >= PREFIX_BYTES + int.from_bytes(self._peek(PREFIX_BYTES)[1:], "big")

    async def read_messages(self, max_bytes: int) -> list[bytes]:
        """Return whole messages that are here, at least one, up to the first that makes them max_bytes.

        Never more than MAX_MESSAGES. Waits for the first if there is none. Must not be mixed with a read that stopped
        between prefix and message.

        Returns:
            The messages without their prefixes; an empty list when the stream has ended.

        Raises:
            GRPCError: as read. Messages before the one that is refused are returned first.
        """
        self.joined_bytes = 0
        await self._wait(PREFIX_BYTES)
        if self._ended and self._size == 0:
            return []
        if self._size < PREFIX_BYTES:
            raise self._cut_off(PREFIX_BYTES, "the length prefix of a message")
        length = self._check_prefix(self._peek(PREFIX_BYTES))
        await self._wait(PREFIX_BYTES + length)
        if self._size < PREFIX_BYTES + length:
            raise self._cut_off(PREFIX_BYTES + length, "a message")
        if PREFIX_BYTES + length >= max_bytes:
            # It goes alone, so what follows it is not to be copied with it.
            self._cut(PREFIX_BYTES)
            message = self._cut(length)
            self._consumed(PREFIX_BYTES + length)
            return [message]
        data = self._chunks[0]
        if len(data) - self._start < max_bytes and len(self._chunks) > 1:
            # All of them at once: what is left of them serves the next calls without being copied again.
            data = self._joined()
        messages = []
        before = place = self._start
        while True:
            begin = place + PREFIX_BYTES
            messages.append(data[begin : begin + length])
            place = begin + length
            if len(data) - place < PREFIX_BYTES or place - before >= max_bytes or len(messages) == MAX_MESSAGES:
                break
            compressed, length = _PREFIX.unpack_from(data, place)
            if compressed or length > self._limit or place + PREFIX_BYTES + length > len(data):
                break  # what is wrong with it is said when it is the first
        self._start = place
        if place == len(data):
            self._chunks.popleft()
            self._start = 0
        self._consumed(place - before)
        return messages

    # -- inside

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, size: int) -> None:
        """Return when size bytes are here or the stream has ended."""
        while self._size < size and not self._ended:
            # The sender may have used up its window with what is here, and would wait for this reader.
            if self._unacknowledged:
                remaining, self._unacknowledged = self._unacknowledged, 0
                self._acknowledge(remaining)
            self._wanted = size
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _check_prefix(self, prefix: bytes) -> int:
        compressed: int
        length: int
        compressed, length = _PREFIX.unpack(prefix)
        if compressed:
            self._refused()
            raise GRPCError(self._compressed_status, "a message is compressed; only uncompressed ones are understood")
        if length > self._limit:
            self._refused()
            raise GRPCError(
                Status.RESOURCE_EXHAUSTED,
                f"a message of {length} bytes is longer than the limit of {self._limit} bytes",
            )
        return length

    def _cut_off(self, size: int, what: str) -> GRPCError:
        self._refused()
        return GRPCError(Status.INTERNAL, f"the stream ended after {self._size} of the {size} bytes of {what}")

    def _peek(self, size: int) -> bytes:
        data = self._chunks[0][self._start : self._start + size]
        for chunk in itertools.islice(self._chunks, 1, None):
            if len(data) >= size:
                break
            data += chunk[: size - len(data)]
        return data

    def _consumed(self, size: int) -> None:
        # Some may have been given back already, while a reader waited for them: those at the front.
        due = max(0, size - (self._size - self._unacknowledged))
        self._size -= size
        if due:
            self._unacknowledged -= due
            self._acknowledge(due)

    async def _read(self, size: int, what: str) -> bytes:
        await self._wait(size)
        if self._size < size:
            if self._size == 0 and self._at_prefix:
                return b""
            raise self._cut_off(size, what)
        data = self._cut(size)
        self._consumed(size)
        return data

    def _cut(self, size: int) -> bytes:
        """Take so many bytes, which are here, from the front; they are copied once, or not at all."""
        parts = []
        rest = size
        while rest:
            chunk = self._chunks[0]
            # A chunk that is wanted whole is not copied.
            part = chunk[self._start : self._start + rest] if self._start or len(chunk) > rest else chunk
            parts.append(part)
            rest -= len(part)
            self._start += len(part)
            if self._start == len(chunk):
                self._chunks.popleft()
                self._start = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _joined(self) -> bytes:
        """Return all that is here as one byte string, which is then the only chunk."""
        if len(self._chunks) > 1 or self._start:
            data = b"".join(self._chunks)[self._start :]
            self.joined_bytes += len(data)
            self._chunks.clear()
            self._chunks.append(data)
            self._start = 0
        return self._chunks[0]
