"""Sending and receiving on a call's stream, where grpclib's own ways are too slow or too trusting."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Generic, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from ..steps import Steps, Turn
from .codec import MessageCodec
from .transport import TunedStream

Received = TypeVar("Received")


def _tuned(stream: Stream[Any, Any]) -> TunedStream:
    tuned = stream._stream  # noqa: SLF001 - grpclib gives no other way to the HTTP/2 stream
    if not isinstance(tuned, TunedStream):
        raise TypeError(f"a stream of type {type(tuned).__name__} came from another transport")
    return tuned


_LET_OTHERS_RUN_BYTES = 1024
"""A message of fewer has too few fields to be worth a look at the clock between them."""


class _Decoder(Generic[Received]):
    """Reads the messages of a call one after the other, and lets others run between them and within them."""

    def __init__(self, stream: Stream[Received, Any]) -> None:
        self._stream = stream
        self._turn = Turn()
        self._turn.begin()

    async def decode(self, data: bytes) -> Received:
        # The codec of the server, and the class that the method is registered with, as grpclib's own recv_message.
        codec, kind = self._stream._codec, self._stream._recv_type  # noqa: SLF001
        if not isinstance(codec, MessageCodec):
            raise TypeError(f"messages are read by a codec of type {type(codec).__name__}")
        steps: Steps[Received] = codec.decode_steps(data, kind)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                message: Received = end.value
                break
            await self._rest()
        if len(data) >= _LET_OTHERS_RUN_BYTES:
            await self._rest()
        return message

    async def _rest(self) -> None:
        if self._turn.is_over:
            await asyncio.sleep(0)
            self._turn.begin()


async def receive_only(stream: Stream[Received, Any]) -> Received:
    """Return the request of a call that has only one."""
    messages = await _tuned(stream).read_messages(1)
    if not messages:
        raise GRPCError(Status.UNIMPLEMENTED, "the call ended without its request message")
    return await _Decoder(stream).decode(messages[0])


async def receive_available(stream: Stream[Received, Any], most_bytes: int) -> list[Received]:
    """Return the requests that have arrived, at least one; an empty list when the client has ended the stream.

    Lets others run first: a client that sends fast must not keep the event loop to itself.
    """
    await asyncio.sleep(0)
    messages = await _tuned(stream).read_messages(most_bytes)
    decoder = _Decoder(stream)
    return [await decoder.decode(data) for data in messages]


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
