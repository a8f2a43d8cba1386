"""Sending and receiving on a call's stream, where grpclib's own ways are too slow or too trusting."""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from .transport import TunedStream

Received = TypeVar("Received")


def _tuned(stream: Stream[Any, Any]) -> TunedStream:
    tuned = stream._stream  # noqa: SLF001 - grpclib gives no other way to the HTTP/2 stream
    if not isinstance(tuned, TunedStream):
        raise TypeError(f"a stream of type {type(tuned).__name__} came from another transport")
    return tuned


def _decoded(stream: Stream[Received, Any], data: bytes) -> Received:
    # The codec of the server, and the class that the method is registered with.
    message: Received = stream._codec.decode(data, stream._recv_type)  # noqa: SLF001 - as grpclib's own recv_message does
    return message


async def receive_only(stream: Stream[Received, Any]) -> Received:
    """Return the request of a call that has only one."""
    messages = await _tuned(stream).read_messages(1)
    if not messages:
        raise GRPCError(Status.UNIMPLEMENTED, "the call ended without its request message")
    return _decoded(stream, messages[0])


async def receive_available(stream: Stream[Received, Any], most_bytes: int) -> list[Received]:
    """Return the requests that have arrived, at least one; an empty list when the client has ended the stream.

    Lets others run first: a client that sends fast must not keep the event loop to itself.
    """
    await asyncio.sleep(0)
    return [_decoded(stream, data) for data in await _tuned(stream).read_messages(most_bytes)]


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
