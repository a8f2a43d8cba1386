"""The producer: what a program calls to write records, and the Trio tasks behind it.

What is sent, again or not, is decided in producer_core.py; the gRPC stream is in streams.py.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager

import attrs
import trio

from proglog_trio._proto.log.v1 import ProduceBatchResponse
from proglog_trio.client.block import run_behind
from proglog_trio.client.config import Acknowledgement, ProducerConfig
from proglog_trio.client.delivery import BatchDelivery, BatchOutcome, BatchPart, Delivery
from proglog_trio.client.errors import NodeUnreachable, ProducerClosed
from proglog_trio.client.nodes import NodeList, parse_addresses
from proglog_trio.client.packing import Buffer, RecordPacker, checked_values, split_values
from proglog_trio.client.pending import ProducerStatistics
from proglog_trio.client.producer_core import ProducerCore
from proglog_trio.client.sessions import ProduceLink, ProduceSession
from proglog_trio.deadline_timer import DeadlineTimer
from proglog_trio.log.format.record import Record
from proglog_trio.rpc.calls.client_streams import produce_link
from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.rpc.calls.expected_cluster import ExpectedCluster
from proglog_trio.rpc.calls.sessions import StreamBroken

CLOSING_SECONDS = 2.0
"""How long a producer that has nothing more to send waits for the node to end its stream."""
_YIELD_AFTER_RECORDS = 256
LATE_SECONDS = 0.5
"""A timer that is later than this was not looked at: this process was stopped, or its loop was held."""
READING_SECONDS = 0.5
"""How long answers that arrived meanwhile are read before anything is given up for want of them."""


class Producer:
    """Writes records to one node at a time, another when it fails. Made by open_producer; for many tasks at once.

    Attributes:
        config: what it was told.
        producer_id: the number by which nodes recognise its retries.
    """

    def __init__(self, config: ProducerConfig, link: ProduceLink, rng: random.Random, nodes: NodeList) -> None:
        self.config = config
        self.producer_id = rng.getrandbits(64) or 1
        self._nodes = nodes
        self._core = ProducerCore(config, self.producer_id, rng, self._has_others)
        self._packer = RecordPacker(config.max_batch_bytes)
        self._link = link
        self._session: ProduceSession | None = None
        self._stream_scope: trio.CancelScope | None = None
        self._dropped_because: StreamBroken | None = None
        self._opened_once = trio.Event()
        self._closed = False
        self._closed_because = "its block has been left"
        self._finishing = False
        self._ended = trio.Event()
        self._work = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._turn = trio.StrictFIFOLock()
        self._timer = DeadlineTimer(self._core.next_wake)
        self._since_yield = 0

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        value: Buffer,
        *,
        key: Buffer | None = None,
        headers: Mapping[str, Buffer] | None = None,
        timestamp: int | None = None,
    ) -> Delivery:
        """Hand in one record; returns at once unless the buffer is full, and then when there is room.

        It always checks for cancellation, and lets other tasks run when it waits and otherwise every few hundred
        records.

        Args:
            value: what to record.
            key: what it is about.
            headers: what goes with it.
            timestamp: when it happened, in milliseconds since the Unix epoch.

        Returns:
            The delivery; wait for it to learn the record's offset or its error.

        Raises:
            TypeError, ValueError: a field has a wrong type, or the record is empty.
            RecordTooLarge: it is larger than max_batch_bytes.
            ProducerClosed: the producer's block has been left, also while this waited for room.
        """
        packed = self._packer.pack(value, key, headers, timestamp)
        await self._admit(len(packed), 1)
        outcome, index = self._add_record(packed)
        return Delivery(outcome, index)

    async def send_many(self, records: Iterable[Record]) -> BatchDelivery:
        """Hand in records one after the other, with one delivery for all of them; see send.

        If one is refused (see send), those before it have been handed in.
        """
        parts: list[BatchPart] = []
        outcome: BatchOutcome | None = None
        first = count = 0
        for record in records:
            packed = self._packer.pack(record.value, record.key, record.headers, record.timestamp)
            await self._admit(len(packed), 1)
            added, index = self._add_record(packed)
            if added is not outcome:
                if outcome is not None:
                    parts.append(BatchPart(outcome, first, count))
                outcome, first, count = added, index, 0
            elif index != first + count:
                # Another task's record came between.
                parts.append(BatchPart(outcome, first, count))
                first, count = index, 0
            count += 1
        if outcome is not None:
            parts.append(BatchPart(outcome, first, count))
        return BatchDelivery(parts)

    async def send_batch(self, values: Sequence[Buffer]) -> BatchDelivery:
        """Hand in records that are values alone, packed in one go: the fastest way in. They are sent without lingering.

        Batches are made as large as the configuration allows; fewer values than that make a small batch.

        Raises:
            TypeError, ValueError, RecordTooLarge: as send; nothing has been handed in then.
            ProducerClosed: the producer's block has been left.
        """
        config = self.config
        parts = []
        split = split_values(checked_values(values), config.batch_bytes, config.batch_records, config.max_batch_bytes)
        for payload, count in split:
            await self._admit(len(payload), count)
            parts.append(BatchPart(self._add_payload(payload, count), 0, count))
        return BatchDelivery(parts)

    async def flush(self) -> None:
        """Send what lingers, and wait until all that was handed in before is settled (within the delivery timeout).

        Raises:
            RecordsNotDelivered: records failed, since the last flush, whose deliveries nobody has waited for.
            ProducerClosed: the producer's block has been left, and nothing failed of which nobody was told.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._settle_all()
        if self._ended.is_set():
            raise self._closed_error()

    async def _settle_all(self) -> None:
        self._close_batch()
        last = self._core.last_outcome
        if last is not None:
            # Outcomes are settled in order.
            await last.settle()
        self._core.ledger.report()

    def observe(self, log_time: int) -> None:
        """Make what is sent from now on later in log time than this, for instance than a record that caused it.

        A node does not follow what is over 60 s ahead of its wall clock: then one of two clocks is wrong, and what is
        sent is stored at an earlier log time, which its delivery says.

        Raises:
            ValueError: it is no log time, outside 64 bits.
        """
        self._core.observe(log_time)

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of records are not settled."""
        return self._core.buffered_bytes

    @property
    def statistics(self) -> ProducerStatistics:
        """What the producer did so far."""
        return self._core.statistics

    @property
    def node(self) -> str:
        """The address of the node that is written to now, or tried."""
        return self._nodes.current

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of all nodes that the producer may write to: those it was given, and those it was told of."""
        return self._nodes.known(trio.current_time())

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster whose nodes are used: the configured one, or that of the first node that said it."""
        return self._nodes.cluster.name

    @property
    def search_failure(self) -> str | None:
        """Why the last question for other nodes was not answered; None if it was, or none was asked."""
        return self._nodes.search_failure

    def _has_others(self, nodes: AbstractSet[str]) -> bool:
        return any(node not in nodes for node in self.nodes)

    async def _admit(self, size: int, count: int) -> None:
        """Wait for room; among those who wait, first come, first served."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._since_yield += count
        if self._since_yield >= _YIELD_AFTER_RECORDS:
            self._since_yield = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        if self._turn.locked() or self._must_wait(size):
            async with self._turn:
                while self._must_wait(size):
                    self._close_batch()
                    await self._room.park()
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> ProducerClosed:
        return ProducerClosed(f"the producer is closed: {self._closed_because}")

    # Ctrl-C comes before or after what follows: it must not lose a batch on its way from one place to another.

    @trio.lowlevel.enable_ki_protection
    def _add_record(self, packed: bytes) -> tuple[BatchOutcome, int]:
        added = self._core.join_open_batch(packed)
        if added is None:
            added = self._core.add_record(packed, trio.current_time())
            self._added()
        return added

    @trio.lowlevel.enable_ki_protection
    def _add_payload(self, payload: bytes, count: int) -> BatchOutcome:
        outcome = self._core.add_payload(payload, count, trio.current_time())
        self._added()
        return outcome

    @trio.lowlevel.enable_ki_protection
    def _close_batch(self) -> None:
        self._core.close_batch()
        if self._core.unsettled:
            self._wake_link()

    def _must_wait(self, size: int) -> bool:
        return not self._closed and not self._core.has_room(size)

    def _added(self) -> None:
        if not self._work.is_set():
            self._work.set()
        session = self._session
        if session is not None and self._core.ready(trio.current_time()):
            session.on_ready()
        self._timer.rearm()

    def _wake_link(self) -> None:
        self._work.set()
        if self._session is not None:
            self._session.on_ready()

    # -- what a session calls ------------------------------------------------------------------------------------------

    def _stream_opened(self, node: str) -> None:
        self._core.stream_opened(trio.current_time(), node)
        self._opened_once.set()
        self._timer.rearm()

    def _next_request(self) -> bytes | None:
        request = self._core.next_request(trio.current_time())
        self._timer.rearm()
        return request

    def _answered(self, answer: ProduceBatchResponse) -> None:
        self._core.answered(answer, trio.current_time())
        self._nodes.worked(self._core.node)
        self._settled_some()
        self._wake_link()
        self._timer.rearm()

    def _settled_some(self) -> None:
        if self._room:
            self._room.unpark_all()

    # -- tasks ---------------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def _watch_time(self) -> None:
        while True:
            armed = await self._timer.wait()
            if trio.current_time() > armed + LATE_SECONDS:
                await trio.sleep(READING_SECONDS)
            failure = self._core.tick(trio.current_time())
            self._settled_some()
            if failure is None:
                if self._session is not None:
                    self._session.on_ready()
            elif self._stream_scope is not None and self._session is not None:
                self._session.alive = False
                self._dropped_because = failure
                self._stream_scope.cancel()

    async def _keep_streaming(self) -> None:
        while True:
            self._nodes.move(trio.current_time(), self._core.refused_by)
            session = self._session = ProduceSession(self)
            session.finishing = self._finishing
            failure: StreamBroken
            with trio.CancelScope() as self._stream_scope:
                try:
                    await self._link(session)
                    failure = StreamBroken("the node ended the stream")
                except StreamBroken as error:
                    failure = error
            if session.alive:
                session.alive = False
                self._core.stream_lost(failure)
                self._settled_some()
            self._nodes.failed(session.node)
            self._session = None
            self._timer.rearm()
            if self._opened_once.is_set() and not self._core.unsettled and not self._finishing:
                # A stream is opened again when there is something to send on it.
                self._work = trio.Event()
                await self._work.wait()
            if self._finishing and not self._core.unsettled:
                return
            await trio.sleep(self._core.backoff.next_delay())

    async def run(self) -> None:
        """Keep a stream to one node or another while there is something to send, until the producer is finished.

        However it ends, everything is settled then, and nobody is left waiting.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_time)
                await self._keep_streaming()
                nursery.cancel_scope.cancel()
        except Exception:
            self._closed_because = "the task behind it has failed"
            raise
        finally:
            self.abandon()

    async def wait_connected(self, seconds: float) -> None:
        """Wait for the first stream; raises NodeUnreachable after so many seconds."""
        with trio.move_on_after(seconds):
            await self._opened_once.wait()
            if self._ended.is_set():
                raise self._closed_error()
            return
        obstacle = self._core.obstacle
        reason = "no answer" if obstacle is None else str(obstacle)
        raise NodeUnreachable(f"no connection within {seconds:g} s: {reason}")

    async def finish(self) -> None:
        """Take nothing more, flush, and let the stream end in order, for which the node has two seconds.

        Raises:
            RecordsNotDelivered: see flush.
        """
        self._closed = True
        self._settled_some()
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._settle_all()
        self._finishing = True
        if self._session is not None:
            self._session.finishing = True
        self._wake_link()
        with trio.move_on_after(CLOSING_SECONDS):
            await self._ended.wait()

    def abandon(self) -> None:
        """Fail whatever is not settled, take nothing more, and let nobody wait any longer."""
        self._closed = True
        if self._session is not None:
            self._session.alive = False
        self._core.abandon()
        self._settled_some()
        self._opened_once.set()
        self._ended.set()


@asynccontextmanager
async def run_producer(
    config: ProducerConfig, link: ProduceLink, rng: random.Random, addresses: tuple[str, ...]
) -> AsyncIterator[Producer]:
    """Run a producer over any link; open_producer is this over gRPC."""
    nodes = NodeList(addresses, rng, ExpectedCluster(config.cluster_name))
    producer = Producer(config, link, rng, nodes)
    async with run_behind(producer.run, producer.abandon, outlives_cancellation=True):
        if config.connect_timeout is not None:
            await producer.wait_connected(config.connect_timeout)
        yield producer
        await producer.finish()


@asynccontextmanager
async def open_producer(
    addresses: str | Sequence[str],
    config: ProducerConfig | None = None,
    *,
    acknowledgement: Acknowledgement | None = None,
    connection: ConnectionConfig | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Producer]:
    """Write to a node, and to another when it fails, for the length of an ``async with`` block.

    At its end everything is flushed. When it is left by an exception or cancelled, what is not acknowledged fails at
    once, with DeliveryAbandoned. Until it is left the producer works, also when the scope around it has been cancelled:
    a shielded ``finally`` in the block may send and flush.

    Args:
        addresses: one node's ("host:port"), or several nodes'; the first is where the writing begins, if it can be
            reached.
        config: see ProducerConfig.
        acknowledgement: takes the place of config's.
        connection: limits, keepalive and TLS of the connections.
        rng: decides the producer id and the random part of backoffs.

    Raises:
        ValueError: an address is none.
        TlsError: the files of the connection's TLS cannot be used.
        NodeUnreachable: no connection within connect_timeout.
        RecordsNotDelivered: see Producer.flush.
    """
    config = config or ProducerConfig()
    if acknowledgement is not None:
        config = attrs.evolve(config, acknowledgement=acknowledgement)
    parsed = parse_addresses(addresses)
    async with run_producer(config, produce_link(connection), rng or random.Random(), parsed) as producer:
        yield producer
