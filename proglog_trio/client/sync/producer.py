"""The producer for threads. What is collected is in collector.py; from there on it is the producer of tasks."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterable, Sequence

import anyio
import anyio.lowlevel

from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.errors import DeliveryAbandoned, ProducerClosed
from proglog_trio.client.packing import RecordPacker, checked_values, split_values
from proglog_trio.client.pending import ProducerStatistics
from proglog_trio.client.sender import Sender, run_sender
from proglog_trio.client.sync.client_thread import ClientThread
from proglog_trio.client.sync.collector import Collector
from proglog_trio.client.sync.delivery import BatchDelivery, Delivery, ThreadBatchPart, ThreadOutcome
from proglog_trio.client.sync.waiting import deadline_after
from proglog_trio.deadline_timer import DeadlineTimer
from proglog_trio.durations import remaining
from proglog_trio.log.format.headers import Buffer, GivenHeaders
from proglog_trio.log.format.record import Record
from proglog_trio.rpc.calls.sessions import ProduceLink


class _Packers(threading.local):
    """A packer for each thread: its buffer is for one at a time."""

    def __init__(self, limit: int) -> None:
        self.pack = RecordPacker(limit).pack


class Producer:
    """Writes records to one node at a time, another when it fails. Made by open_producer; for many threads at once.

    In a process that was forked from the one that opened it, whatever would wait or send raises ClientForked.

    Attributes:
        config: what it was told.
        producer_id: the number by which nodes recognise its retries.
    """

    def __init__(self, config: ProducerConfig, sender: Sender, collector: Collector, thread: ClientThread) -> None:
        self.config = config
        self.producer_id = sender.core.producer_id
        self._sender = sender
        self._collector = collector
        self._thread = thread
        self._pid = thread.pid
        self._packers = _Packers(config.max_batch_bytes)

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(
        self,
        value: Buffer,
        *,
        key: Buffer | None = None,
        headers: GivenHeaders | None = None,
        timestamp: int | None = None,
        timeout: float | None = None,
    ) -> Delivery:
        """Hand in one record; returns at once unless the buffer is full, and then when there is room.

        Args:
            value: what to record.
            key: what it is about.
            headers: what goes with it: a mapping, or pairs (name, content), which keep their order.
            timestamp: when it happened, in milliseconds since the Unix epoch.
            timeout: how many seconds to wait for room; None: as long as it takes.

        Returns:
            The delivery; wait for it to learn the record's offset or its error.

        Raises:
            TypeError, ValueError: a field has a wrong type, the record is empty, or a header's name comes twice.
            RecordTooLarge: it is larger than max_batch_bytes.
            TimeoutError: there was no room within the timeout; the record was not handed in.
            ProducerClosed: the producer's block has been left, also while this waited for room.
            ClientForked: this is a fork of the process that opened the producer.
        """
        if os.getpid() != self._pid:
            raise self._thread.forked()
        packed = self._packers.pack(value, key, headers, timestamp)
        outcome, index = self._collector.add_record(packed, timeout)
        return Delivery(outcome, index)

    def send_many(self, records: Iterable[Record], *, timeout: float | None = None) -> BatchDelivery:
        """Hand in records one after the other, with one delivery for all of them; see send.

        If one is refused (see send), those before it have been handed in.

        Args:
            records: what to record.
            timeout: how many seconds to wait for room in all.
        """
        if os.getpid() != self._pid:
            raise self._thread.forked()
        deadline = deadline_after(timeout)
        pack, add = self._packers.pack, self._collector.add_record
        parts: list[ThreadBatchPart] = []
        outcome: ThreadOutcome | None = None
        first = count = 0
        for record in records:
            packed = pack(record.value, record.key, record.headers, record.timestamp)
            added, index = add(packed, _remaining(deadline))
            if added is not outcome or index != first + count:
                # Another batch; or another thread's record came between.
                if outcome is not None:
                    parts.append(ThreadBatchPart(outcome, first, count))
                outcome, first, count = added, index, 0
            count += 1
        if outcome is not None:
            parts.append(ThreadBatchPart(outcome, first, count))
        return BatchDelivery(parts)

    def send_batch(self, values: Sequence[Buffer], *, timeout: float | None = None) -> BatchDelivery:
        """Hand in records that are values alone, packed in one go: the fastest way in. They are sent without lingering.

        Batches are made as large as the configuration allows; fewer values than that make a small batch.

        Args:
            values: what to record.
            timeout: how many seconds to wait for room in all.

        Raises:
            TypeError, ValueError, RecordTooLarge: as send; nothing has been handed in then.
            TimeoutError: as send; it says how many of the values have been handed in, which are the first.
            ProducerClosed, ClientForked: as send.
        """
        if os.getpid() != self._pid:
            raise self._thread.forked()
        config = self.config
        deadline = deadline_after(timeout)
        parts: list[ThreadBatchPart] = []
        split = split_values(checked_values(values), config.batch_bytes, config.batch_records, config.max_batch_bytes)
        try:
            for payload, count in split:
                outcome = self._collector.add_payload(payload, count, _remaining(deadline))
                parts.append(ThreadBatchPart(outcome, 0, count))
        except TimeoutError as error:
            handed_in = sum(part.count for part in parts)
            raise TimeoutError(f"{handed_in} of {len(values)} values were handed in: {error}") from None
        return BatchDelivery(parts)

    def flush(self, timeout: float | None = None) -> None:
        """Send what lingers, and wait until all that was handed in before is settled (within the delivery timeout).

        Raises:
            RecordsNotDelivered: records failed, since the last flush, whose deliveries no thread has waited for.
            TimeoutError: not all was settled within so many seconds.
            ProducerClosed: the producer's block has been left, and there is no such failure to report.
            ClientForked: as send.
        """
        if os.getpid() != self._pid:
            raise self._thread.forked()
        last = self._collector.close_batch()
        # Outcomes are settled in order.
        if last is not None and not last.wait_settled(deadline_after(timeout)):
            raise TimeoutError(f"{self.buffered_bytes} bytes of records were not acknowledged within {timeout:g} s")
        self._collector.report()
        if self._collector.closed_because is not None:
            raise ProducerClosed(
                f"the producer is closed: {self._collector.closed_because}; open another one to send more"
            )

    def observe(self, log_time: int) -> None:
        """Make what is sent from now on later in log time than this, for instance than a record that caused it.

        A node does not follow what is over 60 s ahead of its wall clock: then one of two clocks is wrong, and what is
        sent is stored at an earlier log time, which its delivery says.

        Raises:
            ValueError: it is no log time, outside 64 bits.
            ClientForked: as send.
        """
        if os.getpid() != self._pid:
            raise self._thread.forked()
        self._collector.observe(log_time)

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of records are not settled."""
        return self._collector.held_bytes

    @property
    def statistics(self) -> ProducerStatistics:
        """What the producer did so far."""
        return self._sender.core.statistics

    @property
    def node(self) -> str:
        """The address of the node that is written to now, or tried."""
        return self._sender.nodes.current

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of all nodes that the producer may write to: those it was given, and those it was told of."""
        return self._thread.ask(self._sender.known)

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster whose nodes are used: the configured one, or that of the first node that said it."""
        return self._sender.nodes.cluster.name

    @property
    def obstacle(self) -> str | None:
        """Why what is handed in could not be sent the last time that was tried; None once a node has answered since."""
        obstacle = self._sender.core.obstacle
        return None if obstacle is None else str(obstacle)

    @property
    def search_failure(self) -> str | None:
        """Why the last question for other nodes was not answered; None if it was, or none was asked."""
        return self._sender.nodes.search_failure


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else remaining(deadline, time.monotonic())


class ProducerRun:
    """A producer's async side: what its thread runs.

    Attributes:
        collector: where threads put records.
        producer: what they call, once the thread is ready.
    """

    def __init__(
        self, config: ProducerConfig, link: ProduceLink, rng: random.Random, addresses: tuple[str, ...]
    ) -> None:
        self.thread = ClientThread("producer", self.run)
        self.producer: Producer | None = None
        self._arguments = config, link, rng, addresses
        self._timer = DeadlineTimer(self._next_due)
        # asyncio's loop has the same clock.
        self.collector = Collector(config, time.monotonic, self._tell, self.thread.pid, self.thread.forked)

    def _tell(self) -> None:
        self.thread.call_soon(self._timer.wake)

    def _next_due(self) -> float | None:
        return self.collector.next_due()

    async def run(self, thread: ClientThread) -> None:
        """Open a sender and hand over to it what is collected, until the thread is left."""
        config, _, _, _ = self._arguments
        try:
            async with run_sender(*self._arguments) as sender:
                try:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._hand_over, sender)
                        self.producer = Producer(config, sender, self.collector, thread)
                        thread.ready()
                        await thread.until_left()
                        tasks.cancel_scope.cancel()
                finally:
                    # Before what is abandoned makes room for what waits.
                    self.collector.close(sender.closed_because)
                while self._take_over(sender, everything=True):
                    await anyio.lowlevel.checkpoint()
        finally:
            while taken := self.collector.take(everything=True):
                for batch in taken:
                    batch.outcome.fail(_abandoned(), batch.count)

    async def _hand_over(self, sender: Sender) -> None:
        while True:
            await self._timer.wait()
            self._take_over(sender)

    def _take_over(self, sender: Sender, *, everything: bool = False) -> bool:
        """Add to the sender what is due, or everything, a few batches at a time; return whether there were any."""
        batches = self.collector.take(everything=everything)
        # After the batches: what was observed before a record was added is here by now.
        for log_time in self.collector.take_observed():
            sender.core.observe(log_time)
        for batch in batches:
            if sender.closed:
                batch.outcome.fail(_abandoned(), batch.count)
            else:
                sender.core.add_payload(batch.payload, batch.count, batch.since, batch.outcome)
        if batches:
            sender.added()
        return bool(batches)


def _abandoned() -> DeliveryAbandoned:
    message = "the producer was left before its batch was acknowledged; it is not stored"
    return DeliveryAbandoned(message, maybe_stored=False)
