"""The producer: what a program calls to write records. The tasks behind it are in sender.py."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import trio

from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.delivery import BatchDelivery, BatchOutcome, Delivery
from proglog_trio.client.packing import RecordPacker, checked_values, split_values
from proglog_trio.client.pending import ProducerStatistics
from proglog_trio.client.sender import Sender, run_sender
from proglog_trio.log.format.headers import Buffer, GivenHeaders
from proglog_trio.log.format.record import Record
from proglog_trio.rpc.calls.sessions import ProduceLink
from proglog_trio.rpc.http2.asyncio_loop import cancellation_check, loop_clock

_YIELD_AFTER_RECORDS = 256


class Producer:
    """Writes records to one node at a time, another when it fails. Made by open_producer; for many tasks at once.

    Attributes:
        config: what it was told.
        producer_id: the number by which nodes recognise its retries.
    """

    def __init__(self, config: ProducerConfig, sender: Sender) -> None:
        self.config = config
        self.producer_id = sender.core.producer_id
        self._sender = sender
        self._core = sender.core
        self._nodes = sender.nodes
        self._packer = RecordPacker(config.max_batch_bytes)
        # Held while waiting for room, so that a small record does not pass a large one that waits.
        self._turn = anyio.Lock()
        self._checkpoint_if_cancelled = cancellation_check()
        self._clock = loop_clock()
        self._since_yield = 0

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(
        self,
        value: Buffer,
        *,
        key: Buffer | None = None,
        headers: GivenHeaders | None = None,
        timestamp: int | None = None,
    ) -> Delivery:
        """Hand in one record; returns at once unless the buffer is full, and then when there is room.

        It always checks for cancellation, and lets other tasks run when it waits and otherwise every few hundred
        records.

        Args:
            value: what to record.
            key: what it is about.
            headers: what goes with it: a mapping, or pairs (name, content), which keep their order.
            timestamp: when it happened, in milliseconds since the Unix epoch.

        Returns:
            The delivery; wait for it to learn the record's offset or its error.

        Raises:
            TypeError, ValueError: a field has a wrong type, the record is empty, or a header's name comes twice.
            RecordTooLarge: it is larger than max_batch_bytes.
            ProducerClosed: the producer's block has been left, also while this waited for room.
        """
        packed = self._packer.pack(value, key, headers, timestamp)
        await self._admit(len(packed), 1)
        outcome, index = self._add_record(packed)
        return Delivery(outcome, index)

    async def send_many(self, records: Iterable[Record], *, into: BatchDelivery | None = None) -> BatchDelivery:
        """Hand in records one after the other, with one delivery for all of them; see send.

        If one is refused (see send), or this is cancelled, those before it have been handed in: ``into`` says how many.

        Args:
            records: what to send.
            into: the delivery to return, to have it when this raises, too. What was handed in is added to it.
        """
        delivery = BatchDelivery() if into is None else into
        for record in records:
            packed = self._packer.pack(record.value, record.key, record.headers, record.timestamp)
            await self._admit(len(packed), 1)
            self._add_record_to(delivery, packed)
        return delivery

    async def send_batch(self, values: Sequence[Buffer], *, into: BatchDelivery | None = None) -> BatchDelivery:
        """Hand in records that are values alone, packed in one go: the fastest way in. They are sent without lingering.

        Batches are made as large as the configuration allows; fewer values than that make a small batch. If this is
        cancelled while it waits for room, the batches before have been handed in: ``into`` says how many values.

        Args:
            values: what to send.
            into: see send_many.

        Raises:
            TypeError, ValueError, RecordTooLarge: as send; nothing has been handed in then.
            ProducerClosed: the producer's block has been left, also while this waited for room.
        """
        config = self.config
        delivery = BatchDelivery() if into is None else into
        split = split_values(checked_values(values), config.batch_bytes, config.batch_records, config.max_batch_bytes)
        for payload, count in split:
            await self._admit(len(payload), count)
            self._add_payload_to(delivery, payload, count)
        return delivery

    async def flush(self) -> None:
        """Send what lingers, and wait until all that was handed in before is settled (within the delivery timeout).

        Raises:
            RecordsNotDelivered: records failed, since the last flush, whose deliveries no task has waited for.
            ProducerClosed: the producer's block has been left, and there is no such failure to report.
        """
        await self._checkpoint_if_cancelled()
        await self._sender.settle_all()
        if self._sender.ended.is_set():
            raise self._sender.closed_error()

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
        return self._sender.known()

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster whose nodes are used: the configured one, or that of the first node that said it."""
        return self._nodes.cluster.name

    @property
    def obstacle(self) -> str | None:
        """Why what is handed in could not be sent the last time that was tried; None once a node has answered since."""
        return None if self._core.obstacle is None else str(self._core.obstacle)

    @property
    def search_failure(self) -> str | None:
        """Why the last question for other nodes was not answered; None if it was, or none was asked."""
        return self._nodes.search_failure

    async def _admit(self, size: int, count: int) -> None:
        """Wait for room; among those who wait, first come, first served."""
        await self._checkpoint_if_cancelled()
        self._since_yield += count
        if self._since_yield >= _YIELD_AFTER_RECORDS:
            self._since_yield = 0
            await anyio.lowlevel.cancel_shielded_checkpoint()
        if self._turn.locked() or self._must_wait(size):
            async with self._turn:
                while self._must_wait(size):
                    self._sender.close_batch()
                    await self._sender.room.wait()
        if self._sender.closed:
            raise self._sender.closed_error()

    def _must_wait(self, size: int) -> bool:
        return not self._sender.closed and not self._core.has_room(size)

    # Ctrl-C comes before or after what follows: it must not lose a batch on its way from one place to another, nor come
    # between a record and the delivery that counts it.

    @trio.lowlevel.enable_ki_protection
    def _add_record(self, packed: bytes) -> tuple[BatchOutcome, int]:
        return self._core.join_open_batch(packed) or self._add_to_another(packed)

    @trio.lowlevel.enable_ki_protection
    def _add_record_to(self, delivery: BatchDelivery, packed: bytes) -> None:
        outcome, index = self._core.join_open_batch(packed) or self._add_to_another(packed)
        delivery.add(outcome, index, 1)

    def _add_to_another(self, packed: bytes) -> tuple[BatchOutcome, int]:
        added = self._core.add_record(packed, self._clock())
        self._sender.added()
        return added

    @trio.lowlevel.enable_ki_protection
    def _add_payload_to(self, delivery: BatchDelivery, payload: bytes, count: int) -> None:
        delivery.add(self._core.add_payload(payload, count, self._clock()), 0, count)
        self._sender.added()


@asynccontextmanager
async def run_producer(
    config: ProducerConfig, link: ProduceLink, rng: random.Random, addresses: tuple[str, ...]
) -> AsyncIterator[Producer]:
    """Run a producer over any link; open_producer is this over gRPC."""
    async with run_sender(config, link, rng, addresses) as sender:
        yield Producer(config, sender)
