"""The consumer: what a program iterates over to read records, and the Trio task behind it.

What is asked for, delivered, trimmed or dropped is decided in consumer_core.py; the gRPC stream is in streams.py.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from proglog_trio._proto.log.v1 import ConsumeBatchesResponse
from proglog_trio.backoff import Backoff
from proglog_trio.client.block import run_behind
from proglog_trio.client.config import Anchor, ConsumerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch, ConsumedRecord, SkippedRange, new_tuple
from proglog_trio.client.consumer_core import ConsumerCore
from proglog_trio.client.errors import ConsumerClosed, NodeUnreachable
from proglog_trio.client.nodes import NodeList, parse_addresses
from proglog_trio.client.sessions import ConsumeLink, ConsumeSession
from proglog_trio.errors import PositionError
from proglog_trio.log.format.origin import Origin
from proglog_trio.rpc.calls.client_streams import consume_link
from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.rpc.calls.expected_cluster import ExpectedCluster
from proglog_trio.rpc.calls.sessions import StreamBroken

REMEMBERED_SKIPS = 1000
LASTING_SECONDS = 10.0
"""A stream that stood for so long without an answer (an idle log's) was a connection."""
_YIELD_AFTER_RECORDS = 1024


class BatchIterator:
    """Iterates over a consumer's batches."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> BatchIterator:
        return self

    async def __anext__(self) -> ConsumedBatch:
        batch = await self._consumer.next_batch()
        if batch is None:
            raise StopAsyncIteration
        return batch


class Consumer:
    """Reads records from one node at a time, in the order of its log. Made by open_consumer; for one task at a time.

    When the node fails it goes on at another, by position: what comes next is what follows there, in that node's order.

    ``async for record in consumer`` and ``async for batch in consumer.batches()`` go on from one another, and from
    where an iteration before was left, by ``break`` or by an error.

    Attributes:
        config: what it was told.
        skipped: the last 1000 ranges that were left out with on_missing="skip".
        skipped_offsets: how many offsets it left out in all.
    """

    def __init__(self, config: ConsumerConfig, link: ConsumeLink, rng: random.Random, nodes: NodeList) -> None:
        self.config = config
        self._nodes = nodes
        self.skipped: deque[SkippedRange] = deque(maxlen=REMEMBERED_SKIPS)
        self.skipped_offsets = 0
        self._core = ConsumerCore(config)
        self._backoff = Backoff(config.backoff, rng)
        self._link = link
        self._session: ConsumeSession | None = None
        self._arrived = trio.lowlevel.ParkingLot()
        self._last_failure: StreamBroken | None = None
        self._closed = False
        self._ended_because: str | None = None
        self._batch: ConsumedBatch | None = None
        self._delivered = 0
        self._rows: list[object] | None = None
        self._common = (0, Origin(bytes(16)), 0, 0, "")
        self._since_yield = 0

    # -- reading -------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Consumer:
        """Iterate over the records; leaving an iteration by ``break`` leaves nothing behind.

        Raises:
            MalformedRecord: something stored is no record; iterating again goes on after it.
            StartOutOfRange, RecordsLost: no node has the next records; see ConsumerConfig.on_missing.
            NodeUnreachable: no connection to any node for reconnect_timeout.
            ConsumerError: a node refused for another reason.
            ConsumerClosed: the consumer's block has been left; or cancelled, and all that had arrived was delivered.
        """
        return self

    # Classes instead of async generators: one that is left by break would wait for the garbage collector.
    async def __anext__(self) -> ConsumedRecord:
        index = self._delivered
        rows = self._rows
        if rows is None or index >= len(rows):
            batch = await self._current_batch()
            if batch is None:
                raise StopAsyncIteration
            index = self._delivered
            # If no row can be read, the whole batch is malformed, and what comes next is behind it.
            self._delivered = batch.count
            rows = self._rows = batch.rows()
            self._common = batch.base_offset, batch.origin, batch.base_sequence, batch.log_time, batch.node
        # What was raised for or delivered lies behind.
        self._delivered = index + 1
        row = rows[index]
        if type(row) is tuple and len(row) == 1 and type(row[0]) is bytes:
            offset, origin, sequence, log_time, node = self._common
            return new_tuple(
                ConsumedRecord, (row[0], None, None, None, offset + index, origin, sequence + index, log_time, node)
            )
        return self._unusual(index)

    def _unusual(self, index: int) -> ConsumedRecord:
        if self._batch is None:
            raise RuntimeError("rows belong to a batch")
        return self._batch.record(index)

    def batches(self) -> BatchIterator:
        """Iterate over the batches as their producers packed them: the fastest way to read; raises as ``__aiter__``.

        A batch counts as delivered when it is given out; MalformedRecord comes from its own methods.
        """
        return BatchIterator(self)

    async def next_batch(self) -> ConsumedBatch | None:
        """Return what is left of the batch that is being delivered, or else the next one; None at the end."""
        batch = await self._current_batch()
        if batch is None:
            return None
        rest = batch.part(self._delivered) if self._delivered else batch
        self._delivered = batch.count
        return rest

    @property
    def position(self) -> bytes | None:
        """The position after the last record that was delivered, to go on from here, on this node or any other.

        None before the first answer, for a consumer that did not begin at a position.
        """
        if self._batch is not None:
            return self._batch.encoded_position_after(self._delivered)
        core = self._core
        return None if core.start is None else core.start.encode(core.start_window.encode())

    @property
    def next_offset(self) -> int | None:
        """The offset after the last record that was delivered, in the log of its node; None when none was."""
        return None if self._batch is None else self._batch.base_offset + self._delivered

    @property
    def end_offset(self) -> int | None:
        """The end of the log of reading_from, as of its last answer; None before the first."""
        return self._core.end_offset

    @property
    def node(self) -> str | None:
        """The address of the node that the last delivered record was read from; None when none was delivered."""
        return None if self._batch is None else self._batch.node

    @property
    def reading_from(self) -> str:
        """The address of the node that is read from now, or tried; what was delivered may come from one before."""
        return self._nodes.current

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of all nodes that the consumer may read from: those it was given, and those it was told of."""
        return self._nodes.known(trio.current_time())

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster whose nodes are used: the configured one, or that of the first node that said it."""
        return self._nodes.cluster.name

    @property
    def search_failure(self) -> str | None:
        """Why the last question for other nodes was not answered; None if it was, or none was asked."""
        return self._nodes.search_failure

    @property
    def duplicate_records(self) -> int:
        """How many records were left out because they were copies of delivered ones, under another origin."""
        return self._core.duplicate_records

    async def _current_batch(self) -> ConsumedBatch | None:
        """Return the batch that has records left to deliver; None at the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise ConsumerClosed("the consumer is closed: its block has been left")
        if self._batch is not None:
            if self._delivered < self._batch.count:
                return self._batch
            self._since_yield += self._batch.count
        if self._since_yield >= _YIELD_AFTER_RECORDS:
            self._since_yield = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        while not self._closed:
            waiting = self._core.waiting_bytes
            batch = self._core.next_batch()
            if self._core.waiting_bytes < waiting and self._session is not None and self._core.has_room():
                # Also when all that waited were copies of what had been delivered.
                self._session.on_room()
            if batch is not None:
                self._take_note_of(batch.skipped)
                self._batch, self._delivered, self._rows = batch, 0, None
                return batch
            if self._core.error is not None:
                raise self._core.error.with_traceback(None)
            if self._core.ended:
                self._take_note_of(self._core.take_skipped())
                return None
            if self._ended_because is not None:
                raise self._ended_error(self._ended_because)
            self._since_yield = 0
            await self._arrived.park()
        raise ConsumerClosed("the consumer is closed: its block has been left")

    def _ended_error(self, reason: str) -> ConsumerClosed:
        return ConsumerClosed(f"the consumer reads nothing more: {reason}")

    def _take_note_of(self, skipped: tuple[SkippedRange, ...]) -> None:
        self.skipped.extend(skipped)
        self.skipped_offsets += sum(each.count for each in skipped)

    # -- the task behind it --------------------------------------------------------------------------------------------

    def _received(self, answer: ConsumeBatchesResponse) -> None:
        before = self._core.received
        self._nodes.worked(self._core.node)
        try:
            self._core.received_answer(answer)
        finally:
            if self.config.follow or self._core.received is not before:
                # Else the node may have answered that it has nothing more, again and again.
                self._backoff.succeeded()
            self._arrived.unpark_all()

    async def run(self) -> None:
        """Keep a stream from one node or another until everything asked for was read, or nothing more can be.

        However it ends, nobody is left waiting for it.
        """
        try:
            await self._keep_streaming()
        except Exception:
            self._ended_because = "the task behind it has failed"
            raise
        finally:
            if self._ended_because is None and not self._core.finished:
                self._ended_because = "its block has been cancelled"
            self._arrived.unpark_all()

    async def _keep_streaming(self) -> None:
        core = self._core
        nodes = self._nodes
        while not core.finished:
            if not core.bound_to_first_node:
                nodes.move(trio.current_time(), core.lacking)
            core.stream_to(nodes.current)
            session = self._session = ConsumeSession(self)
            try:
                await self._link(session)
                core.stream_ended()
            except StreamBroken as failure:
                self._last_failure = failure
                now = trio.current_time()
                if session.opened_at is not None and now - session.opened_at >= LASTING_SECONDS:
                    core.stream_lasted()
                    self._backoff.succeeded()
                    nodes.worked(nodes.current)
                nodes.failed(nodes.current)
                core.stream_lost(failure, now, nodes.known(now))
            self._session = None
            self._arrived.unpark_all()
            if not core.finished:
                await trio.sleep(self._backoff.next_delay())

    async def wait_started(self, seconds: float) -> None:
        """Wait until a node has said where the stream begins, or why not; raises NodeUnreachable after so long."""
        core = self._core
        with trio.move_on_after(seconds):
            while core.end_offset is None and not core.finished and self._ended_because is None:
                await self._arrived.park()
            if self._ended_because is not None:
                raise self._ended_error(self._ended_because)
            return
        reason = "no answer" if self._last_failure is None else str(self._last_failure)
        if core.bound_to_first_node and len(self._nodes.given) > 1:
            reason += f" (an offset is a place in the log of {self._nodes.current} alone)"
        raise NodeUnreachable(f"no connection within {seconds:g} s: {reason}")

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
        self._rows = None
        self._arrived.unpark_all()


@asynccontextmanager
async def run_consumer(
    config: ConsumerConfig, link: ConsumeLink, rng: random.Random, addresses: tuple[str, ...]
) -> AsyncIterator[Consumer]:
    """Run a consumer over any link; open_consumer is this over gRPC."""
    nodes = NodeList(addresses, rng, ExpectedCluster(config.cluster_name))
    consumer = Consumer(config, link, rng, nodes)
    # What a shielded read would wait for may never come, unlike an acknowledgement, whose time is bounded.
    async with run_behind(consumer.run, consumer.close, outlives_cancellation=False):
        await consumer.wait_started(config.connect_timeout)
        yield consumer


@asynccontextmanager
async def open_consumer(
    addresses: str | Sequence[str],
    config: ConsumerConfig | None = None,
    *,
    connection: ConnectionConfig | None = None,
    rng: random.Random | None = None,
    offset: int | None = None,
    position: bytes | None = None,
    anchor: Anchor | None = None,
    follow: bool | None = None,
) -> AsyncIterator[Consumer]:
    """Read from a node, and from another when it fails, for the length of an ``async with`` block.

    When the block begins, a node has said where the reading starts: with Anchor.END, whatever is appended to its log
    from then on is delivered. When the scope around the block is cancelled, reading ends: what has arrived by then is
    still delivered, in a shielded ``finally`` in the block, and then ConsumerClosed is raised.

    Args:
        addresses: one node's ("host:port"), or several nodes'. The first is where the reading begins, if it can be
            reached, and the only one where an offset can be resolved.
        config: see ConsumerConfig.
        connection: limits, keepalive and TLS of the connections.
        rng: decides the random part of backoffs.
        offset: takes the place of the place to begin in config, as do the next two.
        position: see offset.
        anchor: see offset.
        follow: takes the place of config's.

    Raises:
        ValueError: an address or the position is none, or the places to begin contradict one another.
        TlsError: the files of the connection's TLS cannot be used.
        NodeUnreachable: no answer within connect_timeout.
    """
    config = config or ConsumerConfig()
    if offset is not None or position is not None or anchor is not None:
        config = attrs.evolve(config, offset=offset, position=position, anchor=anchor)
    if follow is not None:
        config = attrs.evolve(config, follow=follow)
    try:
        parsed = parse_addresses(addresses)
        async with run_consumer(config, consume_link(connection), rng or random.Random(), parsed) as consumer:
            yield consumer
    except PositionError as error:
        raise ValueError(f"the position to begin at is none: {error}") from None
