"""Sending and receiving on a call's stream, where grpclib's own ways are too slow or too trusting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import betterproto2
from grpclib.client import Stream as ClientStream
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from proglog_trio.rpc.http2.connection import TunedStream
from proglog_trio.rpc.http2.message_buffer import prefixed
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.protobuf import bytes_field_header, encode_message
from proglog_trio.steps import COPIED_AT_ONCE_BYTES, Result, Steps, Turn
from proglog_trio.units import KIBIBYTE

Received = TypeVar("Received")

READ_AT_ONCE_BYTES = 64 * KIBIBYTE
"""Requests are read together until they are so long; one may be longer."""


def _tuned(stream: Stream[Any, Any] | ClientStream[Any, Any]) -> TunedStream:
    tuned = stream._stream  # noqa: SLF001 - grpclib gives no other way to the HTTP/2 stream
    if not isinstance(tuned, TunedStream):
        raise TypeError(f"a stream of type {type(tuned).__name__} came from another transport")
    return tuned


_LOOK_AT_THE_CLOCK_BYTES = 1024
"""So many bytes have too few fields to be worth a look at the clock among them."""


class Rests:
    """Lets others have a turn in a loop that may never have to wait (asyncio flavour)."""

    def __init__(self) -> None:
        self._turn = Turn()
        self._turn.begin()

    async def rest(self) -> None:
        """Let others have their turn, if this one is over."""
        if self._turn.is_over:
            await asyncio.sleep(0)
            self._turn.begin()

    def waited(self) -> None:
        """Begin a new turn: what was awaited just now has let others run."""
        self._turn.begin()


class _Decoder(Generic[Received]):
    """Reads the messages of a call one after the other, and lets others run between them and within them."""

    def __init__(self, stream: Stream[Received, Any] | ClientStream[Any, Received]) -> None:
        # The codec of the server, and the class that the method is registered with, as grpclib's own recv_message.
        codec = stream._codec  # noqa: SLF001
        if not isinstance(codec, MessageCodec):
            raise TypeError(f"messages are read by a codec of type {type(codec).__name__}")
        self._codec, self._kind = codec, stream._recv_type  # noqa: SLF001
        self._bytes = 0
        self._rests = Rests()

    async def decode(self, data: bytes) -> Received:
        self._bytes += len(data)
        if self._bytes < _LOOK_AT_THE_CLOCK_BYTES:
            small: Received = self._codec.decode(data, self._kind)
            return small
        self._bytes = 0
        steps: Steps[Received] = self._codec.decode_steps(data, self._kind)
        return await in_turns(steps, self._rests)


async def receive_only(stream: Stream[Received, Any]) -> Received:
    """Return the request of a call that has only one."""
    messages = await _tuned(stream).read_messages(1)
    if not messages:
        raise GRPCError(Status.UNIMPLEMENTED, "the call ended without its request message")
    return await _Decoder(stream).decode(messages[0])


async def receive_available(stream: Stream[Received, Any], max_bytes: int = READ_AT_ONCE_BYTES) -> list[Received]:
    """Return the requests that have arrived, at least one, up to the first that makes them max_bytes.

    The list is empty when the client has ended the stream. Lets others run first: a client that sends fast must not
    keep the event loop to itself.
    """
    await asyncio.sleep(0)
    tuned = _tuned(stream)
    messages = await tuned.read_messages(max_bytes)
    if tuned.buffer.joined_bytes >= 2 * COPIED_AT_ONCE_BYTES:
        # All that had arrived was put together, and what is read is copied once more.
        await asyncio.sleep(0)
    decoder = _Decoder(stream)
    return [await decoder.decode(data) for data in messages]


async def receive_next(stream: ClientStream[Any, Received], rests: Rests | None = None) -> Received | None:
    """Return the next answer of a node that is asked, as grpclib's recv_message, or None at the end.

    Args:
        stream: the call's.
        rests: of a loop that reads answers. A turn of it begins where an answer had to be waited for; where one is here
            already, others run first if the turn is over.
    """
    if not stream._recv_initial_metadata_done:  # noqa: SLF001 - as grpclib's own does
        await stream.recv_initial_metadata()
    with stream._wrapper:  # noqa: SLF001 - as grpclib's own does
        tuned = _tuned(stream)
        waits = not tuned.buffer.has_message
        messages = await tuned.read_messages(1)
    if rests is not None:
        if waits:
            rests.waited()
        else:
            await rests.rest()
    return await _Decoder[Received](stream).decode(messages[0]) if messages else None


async def in_turns(steps: Steps[Result], rests: Rests | None = None) -> Result:
    """Return what work gives, and let others run in between, and before if the turn of rests is over."""
    rests = rests or Rests()
    while True:
        await rests.rest()
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


async def encode_list(field: int, messages: Iterable[betterproto2.Message]) -> bytes:
    """Return a length-prefixed message that has nothing but a list; see encode_items."""
    return prefixed(await encode_items(field, messages))


async def encode_items(field: int, messages: Iterable[betterproto2.Message]) -> bytes:
    """Return a list as it stands in a message.

    Each of the list is made and encoded by itself, and others run in between: a large cluster's takes a while.

    Args:
        field: the list's number.
        messages: what is in it.
    """

    def steps() -> Steps[bytes]:
        parts: list[bytes] = []
        for message in messages:
            encoded = encode_message(message)
            parts += (bytes_field_header(field, len(encoded)), encoded)
            yield
        return b"".join(parts)

    return await in_turns(steps())


async def wait_writable(stream: Stream[Any, Any]) -> int:
    """Wait until the client takes data; return how many bytes its flow-control windows allow."""
    return await _tuned(stream).wait_writable()


async def send_encoded(stream: Stream[Any, Any], data: bytes, count: int) -> None:
    """Send length-prefixed messages that are encoded already, all of them in as few frames as they need."""
    if not stream._send_initial_metadata_done:  # noqa: SLF001 - as grpclib's own send_message does
        await stream.send_initial_metadata()
    tuned = _tuned(stream)
    await tuned.send_data(data)
    stream._send_message_done = True  # noqa: SLF001 - as grpclib's own send_message does
    tuned.connection.messages_sent += count
    tuned.connection.last_message_sent = time.monotonic()
