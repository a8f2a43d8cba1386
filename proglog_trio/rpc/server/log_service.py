"""The Log service, log.v1.Log: the methods of proto/log/v1/log.proto over one log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import trio
from attrs import field, frozen
from grpclib.const import Cardinality, Handler
from grpclib.health.check import CheckBase, ServiceStatus

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.log import Log
from proglog_trio.replication.replica import Replica
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.server.consume import ConsumeCalls
from proglog_trio.rpc.server.log_service_state import (
    AcknowledgementWaits,
    LogServiceConfig,
    LogServiceCounters,
    LogServiceState,
    ServerInfo,
)
from proglog_trio.rpc.server.produce import ProduceCalls
from proglog_trio.rpc.server.server_list.calls import ServerListCalls
from proglog_trio.rpc.server.server_list.news import ServerNews

SERVICE_NAME = "log.v1.Log"
WRITING, READING = f"{SERVICE_NAME}.Produce", f"{SERVICE_NAME}.Consume"
"""What the health service can be asked for besides the service as a whole, which is well when both are."""


@frozen(eq=False)
class LogService:
    """The service; see open_log_service.

    Attributes:
        state: what its calls share.
        news: what is told of the servers.
        is_writable: what the health service says of writing.
    """

    state: LogServiceState
    news: ServerNews
    is_writable: ServiceStatus = field(factory=ServiceStatus)

    @property
    def counters(self) -> LogServiceCounters:
        """What the service has done."""
        return self.state.counters

    def __mapping__(self) -> Mapping[str, Handler]:
        """Return the methods by their paths, for grpclib."""
        produce, consume = ProduceCalls(self.state), ConsumeCalls(self.state)
        listing = ServerListCalls(self.state, self.news)
        unary, answers, both = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM, Cardinality.STREAM_STREAM
        methods = {
            "Produce": Handler(produce.produce, unary, log_v1.ProduceRequest, record_messages.ProduceResponse),
            "Consume": Handler(consume.consume, unary, log_v1.ConsumeRequest, record_messages.ConsumeResponse),
            "ConsumeStream": Handler(
                consume.consume_stream, answers, log_v1.ConsumeRequest, record_messages.ConsumeResponse
            ),
            "ProduceStream": Handler(
                produce.produce_stream, both, record_messages.ProduceRequest, record_messages.ProduceResponse
            ),
            "GetServers": Handler(listing.get_servers, unary, log_v1.GetServersRequest, log_v1.GetServersResponse),
            "WatchServers": Handler(
                listing.watch_servers, answers, log_v1.WatchServersRequest, log_v1.WatchServersResponse
            ),
            "ProduceBatches": Handler(
                produce.produce_batches, both, log_v1.ProduceBatchRequest, log_v1.ProduceBatchResponse
            ),
            "ConsumeBatches": Handler(
                consume.consume_batches, answers, log_v1.ConsumeBatchesRequest, log_v1.ConsumeBatchesResponse
            ),
        }
        return {f"/{SERVICE_NAME}/{name}": handler for name, handler in methods.items()}

    def health_checks(self) -> Mapping[str, Collection[CheckBase]]:
        """Return what the health service says of reading, of writing, and of all of it."""
        return {SERVICE_NAME: [self.is_writable], WRITING: [self.is_writable], READING: []}

    async def drain(self) -> None:
        """Accept nothing more, and return when what has been accepted is stored and answered (asyncio flavour)."""
        state = self.state
        state.draining = True
        state.changed.wake_all()
        self.news.wake_all()
        for reading in list(state.reading):
            reading.cancel()
        # This node has left the cluster by now: no peer pulls from it any more, so no wait would be reached.
        state.acknowledgements.end_all()
        if state.producing:
            await asyncio.wait(list(state.producing))


@contextlib.asynccontextmanager
async def open_log_service(
    log: Log,
    servers: Callable[[], Sequence[ServerInfo]],
    config: LogServiceConfig | None = None,
    replica: Replica | None = None,
    *,
    server_id: str = "",
    failed: Callable[[], Sequence[ServerInfo]] = tuple,
) -> AsyncIterator[LogService]:
    """Make the service of a log, for the length of an ``async with`` block in Trio, in which it may be served.

    Args:
        log: an open log.
        servers: gives the nodes that clients can dial, this one included.
        config: see LogServiceConfig.
        replica: knows which other nodes have what is appended; None: there are no others.
        server_id: which of the servers this node is.
        failed: gives the nodes that count as failed, the last that failed first, at most MAX_FAILED.
    """
    config = config or LogServiceConfig()
    executor = ThreadPoolExecutor(config.reading_threads, thread_name_prefix="log reader")
    acknowledgements = AcknowledgementWaits()
    if replica is not None:
        acknowledgements = AcknowledgementWaits(replica.wait_acknowledged, replica.holdings.acknowledgements.end_all)
    state = LogServiceState(log, config, LogServiceCounters(), executor, servers, acknowledgements)
    is_writable = ServiceStatus()

    def changed() -> None:
        state.changed.wake_all()
        is_writable.set(log.read_only_reason is None)

    changed()
    forget = log.notify_durable(changed)
    try:
        yield LogService(state, ServerNews(log.config.cluster_name, server_id, servers, failed), is_writable)
    finally:
        forget()
        with trio.CancelScope(shield=True):
            # Reads that are under way are short; nothing new begins, since no call is left.
            await trio.to_thread.run_sync(executor.shutdown)
