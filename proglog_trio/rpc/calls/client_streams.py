"""The gRPC streams of producers and consumers: one connection and one asyncio coroutine each.

Beside each stream, on its connection, the node is asked now and then which others there are; and another one, on a
connection to it, is asked to tell of nodes that fail, see server_watch.py.

Everything asyncio of the client library is here and in connection.py. Sessions are called from the asyncio side; they
and their Trio tasks are in one thread, so nothing needs a lock, and what crosses over is one wake-up for many records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import attrs
import trio
from attrs import frozen
from grpclib.client import Stream, UnaryUnaryMethod
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from proglog_trio._proto.log.v1 import (
    ConsumeBatchesRequest,
    ConsumeBatchesResponse,
    GetServersRequest,
    GetServersResponse,
    ProduceBatchResponse,
)
from proglog_trio.errors import CallFailed, NodeConnectionError
from proglog_trio.rpc.calls.connection import ConnectionConfig, TunedChannel, call_error, open_connection
from proglog_trio.rpc.calls.expected_cluster import check_error
from proglog_trio.rpc.calls.server_watch import ServerWatch, server_watch
from proglog_trio.rpc.calls.sessions import (
    ConsumeLink,
    ConsumeSession,
    NodeSession,
    OtherCluster,
    ProduceLink,
    ProduceSession,
    StreamBroken,
)
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.calls.task_pair import run_beside
from proglog_trio.rpc.http2.asyncio_loop import leave_inherited_loop

PRODUCE_BATCHES = "/log.v1.Log/ProduceBatches"
CONSUME_BATCHES = "/log.v1.Log/ConsumeBatches"
GET_SERVERS = "/log.v1.Log/GetServers"
Session = TypeVar("Session", bound=NodeSession)
SEARCH_SECONDS = 30.0
"""How often a node is asked which others there are; they are forgotten much later, see client/nodes.py."""
SEARCH_ANSWER_SECONDS = 5.0
GREETING_SECONDS = 5.0
"""How long a node may take to accept a stream and say of which cluster it is, before records are sent on it."""
CONNECT_SECONDS_AMONG_SEVERAL = 3.0
"""How long one node of several may take to accept a connection, and for the HTTP/2 handshake: a machine that is down
does not refuse, and a process that is stopped does not answer."""


@frozen
class EncodedMessage:
    """A message that is bytes already, as grpclib's codec wants it."""

    data: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the bytes."""
        return self.data


def produce_link(connection: ConnectionConfig | None = None) -> ProduceLink:
    """Return what runs one ProduceBatches stream to its session's node.

    Raises:
        TlsError: the files of the connection's TLS cannot be used.
    """
    return partial(_run, _checked(connection), _produce)


def consume_link(connection: ConnectionConfig | None, window_bytes: int) -> ConsumeLink:
    """Return what runs one ConsumeBatches stream from its session's node; raises as produce_link.

    Args:
        connection: None: the default.
        window_bytes: how much the node may send unasked, unless the connection's configuration says less.
    """
    config = _checked(connection)
    window_bytes = min(window_bytes, config.transport.stream_window_bytes)
    transport = attrs.evolve(config.transport, stream_window_bytes=window_bytes)
    return partial(_run, attrs.evolve(config, transport=transport), _consume)


def _checked(connection: ConnectionConfig | None) -> ConnectionConfig:
    config = connection or ConnectionConfig()
    if config.tls is not None:
        config.tls.files()
    return config


async def _run(
    connection: ConnectionConfig,
    function: Callable[[TunedChannel, Session], Coroutine[Any, Any, None]],
    session: Session,
) -> None:
    leave_inherited_loop()
    if (refusal := session.refusal) is not None:
        raise StreamBroken(refusal)
    config = attrs.evolve(connection, cluster=session.cluster)
    try:
        async with open_connection(session.node, _less_patient(config) if session.others else config) as opened:
            if not session.searches:
                await opened.run(function, session)
            else:
                async with server_watch(session, _less_patient(connection), opened.channel) as watch:
                    await opened.run(_beside_search, function, session, watch)
    except OtherCluster as error:
        session.is_elsewhere(session.node, str(error))
        raise StreamBroken(str(error)) from error
    except NodeConnectionError as error:
        raise StreamBroken(str(error)) from error
    except CallFailed as error:
        raise StreamBroken(str(error), StatusCode(error.code)) from error


def _less_patient(config: ConnectionConfig) -> ConnectionConfig:
    """Return how to connect to one node of several: there are others to go to."""
    seconds = CONNECT_SECONDS_AMONG_SEVERAL
    transport = attrs.evolve(config.transport, handshake_seconds=min(config.transport.handshake_seconds, seconds))
    return attrs.evolve(config, connect_timeout=min(config.connect_timeout, seconds), transport=transport)


async def _beside_search(
    channel: TunedChannel,
    function: Callable[[TunedChannel, Session], Coroutine[Any, Any, None]],
    session: Session,
    watch: ServerWatch,
) -> None:
    async with run_beside(_search(channel, session, watch)):
        await function(channel, session)


async def _search(channel: TunedChannel, session: NodeSession, watch: ServerWatch) -> None:
    """Ask the node again and again which others there are."""
    get_servers = UnaryUnaryMethod(channel, GET_SERVERS, GetServersRequest, GetServersResponse)
    while True:
        try:
            # Not grpclib's own timeout, which makes a TimeoutError of a cancellation that comes at the same moment.
            async with asyncio.timeout(SEARCH_ANSWER_SECONDS):
                answer = await get_servers(GetServersRequest())
        except TimeoutError:
            session.search_failed(f"{session.node} did not tell of other nodes within {SEARCH_ANSWER_SECONDS:g} s")
        except GRPCError as error:
            # A client that may not ask, or asks a node that cannot tell, has the addresses that were given.
            check_error(session.cluster, error, session.node)
            session.search_failed(str(call_error(error, session.node, channel)))
        except (StreamTerminatedError, H2Error, OSError) as error:
            # The stream beside this sees the connection's end too. This must not go on: grpclib raises this, too, in
            # the place of a cancellation that comes at the same moment.
            session.search_failed(str(call_error(error, session.node, channel)))
            return
        except NodeConnectionError as error:
            session.search_failed(str(error))
            return
        else:
            if answer.cluster_name:
                session.cluster.check(answer.cluster_name, session.node)
            watch.found(answer.server_id, [server.rpc_addr for server in answer.servers])
        await asyncio.sleep(SEARCH_SECONDS)


def _waker(event: asyncio.Event) -> Callable[[], None]:
    """Return what sets an event, called from Trio: a Ctrl-C in the middle would leave its waiter asleep for ever."""

    @trio.lowlevel.enable_ki_protection
    def wake() -> None:
        event.set()

    return wake


async def _produce(channel: TunedChannel, session: ProduceSession) -> None:
    ready = asyncio.Event()
    ended = asyncio.Event()
    async with channel.request(
        PRODUCE_BATCHES, Cardinality.STREAM_STREAM, EncodedMessage, ProduceBatchResponse
    ) as stream:
        await stream.send_request()
        await _greet(stream, session)
        session.opened(_waker(ready))
        async with run_beside(_send(stream, session, ready, ended)):
            while (answer := await stream.recv_message()) is not None:
                session.answered(answer)
        if not ended.is_set():
            # In this form grpclib puts the status that the node gave in its place, if it gave one.
            raise StreamTerminatedError("the node ended the stream")


async def _greet(stream: Stream[EncodedMessage, ProduceBatchResponse], session: ProduceSession) -> None:
    """Wait until the node has said of which cluster it is: no record is sent to one of another.

    One that says nothing before its first answer is believed to be the right one: it looks itself, if it can.
    """
    try:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await stream.recv_initial_metadata()
        except TimeoutError:
            return
        except StreamTerminatedError:
            # In the same moment as the status that the node gave, if it gave one.
            stream._maybe_raise()  # noqa: SLF001 - as grpclib itself does when a stream is left
            raise
    except GRPCError as error:
        check_error(session.cluster, error, session.node)
        # It was reached, and refuses: what is to be sent cannot be.
        session.opened()
        raise


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


async def _ask_end(channel: TunedChannel, session: ConsumeSession, request: ConsumeBatchesRequest) -> None:
    async with channel.request(
        CONSUME_BATCHES, Cardinality.UNARY_STREAM, ConsumeBatchesRequest, ConsumeBatchesResponse
    ) as stream:
        await stream.send_message(request, end=True)
        answer = await stream.recv_message()
        if answer is None:
            raise StreamTerminatedError("the node did not say where its log ends")
        session.received_end(answer)


async def _consume(channel: TunedChannel, session: ConsumeSession) -> None:
    end_request = session.end_request()
    if end_request is not None:
        await _ask_end(channel, session, end_request)
    room = asyncio.Event()
    async with channel.request(
        CONSUME_BATCHES, Cardinality.UNARY_STREAM, ConsumeBatchesRequest, ConsumeBatchesResponse
    ) as stream:
        await stream.send_message(session.request())
        session.opened(_waker(room))
        while True:
            while not session.has_room:
                # Reading stops, and HTTP/2's flow control stops the node.
                room.clear()
                await room.wait()
            response = await stream.recv_message()
            if response is None:
                return
            session.received(response)
            # The session has taken out what it needs; while there is no room the rest must not be held beside that.
            del response
