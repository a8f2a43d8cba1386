"""The gRPC streams of producers and consumers: one connection and one asyncio coroutine each.

Everything asyncio of the client library is here and in connection.py. Sessions are called from the asyncio side; they
and their Trio tasks are in one thread, so nothing needs a lock, and what crosses over is one wake-up for many records.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import trio_asyncio
from attrs import frozen
from grpclib.client import Stream
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from h2.exceptions import H2Error

from ..._proto.log.v1 import ConsumeBatchesRequest, ConsumeBatchesResponse, ProduceBatchResponse
from ...address import Address
from ...errors import CallFailed, NodeConnectionError
from .connection import ConnectionConfig, TunedChannel, open_connection
from .errors import StreamBroken, status_of_code

if TYPE_CHECKING:
    from .consumer import ConsumeLink, ConsumeSession
    from .producer import ProduceLink, ProduceSession

PRODUCE_BATCHES = "/log.v1.Log/ProduceBatches"
CONSUME_BATCHES = "/log.v1.Log/ConsumeBatches"
Session = TypeVar("Session")


@frozen
class EncodedMessage:
    """A message that is bytes already, as grpclib's codec wants it."""

    data: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the bytes."""
        return self.data


def produce_link(address: str, connection: ConnectionConfig | None = None) -> ProduceLink:
    """Return what runs one ProduceBatches stream to the node at address.

    Raises:
        ValueError: the address is none.
        TlsError: the files of the connection's TLS cannot be used.
    """
    _check(address, connection)

    async def link(session: ProduceSession) -> None:
        await _run(address, connection, _produce, session)

    return link


def consume_link(address: str, connection: ConnectionConfig | None = None) -> ConsumeLink:
    """Return what runs one ConsumeBatches stream from the node at address; raises as produce_link."""
    _check(address, connection)

    async def link(session: ConsumeSession) -> None:
        await _run(address, connection, _consume, session)

    return link


def _check(address: str, connection: ConnectionConfig | None) -> None:
    Address.parse(address)
    if connection is not None and connection.tls is not None:
        connection.tls.files()


async def _run(
    address: str,
    connection: ConnectionConfig | None,
    function: Callable[[TunedChannel, Session], Awaitable[None]],
    session: Session,
) -> None:
    # A loop of its own: the one that this task inherited may be closed by whoever opened it before this task ends.
    trio_asyncio.current_loop.set(None)
    try:
        async with open_connection(address, connection) as opened:
            await opened.run(function, session)
    except NodeConnectionError as error:
        raise StreamBroken(str(error)) from error
    except CallFailed as error:
        raise StreamBroken(str(error), status_of_code(error.code)) from error


async def _produce(channel: TunedChannel, session: ProduceSession) -> None:
    ready = asyncio.Event()
    ended = asyncio.Event()
    session.on_ready = ready.set
    async with channel.request(
        PRODUCE_BATCHES, Cardinality.STREAM_STREAM, EncodedMessage, ProduceBatchResponse
    ) as stream:
        await stream.send_request()
        session.opened()
        async with _beside(_send(stream, session, ready, ended)):
            while (answer := await stream.recv_message()) is not None:
                session.answered(answer)
        if not ended.is_set():
            # In this form grpclib puts the status that the node gave in its place, if it gave one.
            raise StreamTerminatedError("the node ended the stream")


async def _send(
    stream: Stream[EncodedMessage, ProduceBatchResponse],
    session: ProduceSession,
    ready: asyncio.Event,
    ended: asyncio.Event,
) -> None:
    try:
        while True:
            ready.clear()
            while (request := session.next_request()) is not None:
                await stream.send_message(EncodedMessage(request))
            if session.finishing:
                await stream.end()
                ended.set()
                return
            await ready.wait()
    except (StreamTerminatedError, H2Error):
        # The receiving side sees the stream's end too, and the status that came with it.
        return


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run an asyncio task beside the body, which is cancelled if the task fails; the task's error comes out then.

    asyncio.TaskGroup would do if it did not wrap the body's own errors, which decide what becomes of the stream.
    """
    body = asyncio.current_task()
    if body is None:
        raise RuntimeError("this runs in an asyncio task")
    task = asyncio.ensure_future(work)

    def ended(task: asyncio.Future[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            body.cancel()

    task.add_done_callback(ended)
    try:
        yield
    except asyncio.CancelledError:
        error = task.exception() if task.done() and not task.cancelled() else None
        if error is not None:
            raise error from None
        raise
    finally:
        task.remove_done_callback(ended)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _consume(channel: TunedChannel, session: ConsumeSession) -> None:
    room = asyncio.Event()
    session.on_room = room.set
    async with channel.request(
        CONSUME_BATCHES, Cardinality.UNARY_STREAM, ConsumeBatchesRequest, ConsumeBatchesResponse
    ) as stream:
        await stream.send_message(session.request())
        session.opened()
        while True:
            room.clear()
            while not session.has_room:
                # Reading stops, and HTTP/2's flow control stops the node.
                await room.wait()
                room.clear()
            response = await stream.recv_message()
            if response is None:
                return
            session.received(response)
