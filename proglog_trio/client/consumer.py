"""The consumer: what a program iterates over to read records. The task behind it is in fetcher.py."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.lowlevel

from proglog_trio.client.config import ConsumerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch, ConsumedRecord, SkippedRange, new_tuple
from proglog_trio.client.errors import OPEN_ANOTHER, ConsumerClosed
from proglog_trio.client.fetcher import Fetcher, make_fetcher, run_fetcher
from proglog_trio.log.format.headers import NO_HEADERS
from proglog_trio.log.format.origin import Origin
from proglog_trio.rpc.calls.sessions import ConsumeLink
from proglog_trio.rpc.http2.asyncio_loop import cancellation_check

REMEMBERED_SKIPS = 1000
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

    def __init__(self, config: ConsumerConfig, fetcher: Fetcher) -> None:
        self.config = config
        self.skipped: deque[SkippedRange] = deque(maxlen=REMEMBERED_SKIPS)
        self.skipped_offsets = 0
        self._fetcher = fetcher
        self._core = fetcher.core
        self._nodes = fetcher.nodes
        self._closed = False
        # The batch that is being delivered, and how many of its records were; a batch with none left stays until the
        # next one is here, since the position is told from it.
        self._batch: ConsumedBatch | None = None
        self._delivered = 0
        # Of that batch, for the iteration over records: its rows, and what all of its records have in common.
        self._rows: list[object] | None = None
        self._common = (0, Origin(bytes(16)), 0, 0, "")
        self._since_yield = 0
        self._checkpoint_if_cancelled = cancellation_check()

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
                ConsumedRecord,
                (row[0], None, NO_HEADERS, None, offset + index, origin, sequence + index, log_time, node),
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
        return self._fetcher.known()

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster whose nodes are used: the configured one, or that of the first node that said it."""
        return self._nodes.cluster.name

    @property
    def obstacle(self) -> str | None:
        """Why no node could be read from the last time that was tried; None once one was reached since."""
        return self._fetcher.obstacle

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
        await self._checkpoint_if_cancelled()
        if self._batch is not None and not self._closed:
            if self._delivered < self._batch.count:
                return self._batch
            self._since_yield += self._batch.count
        if self._since_yield >= _YIELD_AFTER_RECORDS:
            self._since_yield = 0
            await anyio.lowlevel.cancel_shielded_checkpoint()
        while not self._closed:
            batch = self._fetcher.next_batch()
            if batch is not None:
                self._count_skipped(batch.skipped)
                self._batch, self._delivered, self._rows = batch, 0, None
                return batch
            if self._core.error is not None:
                raise self._core.error.with_traceback(None)
            if self._core.ended:
                self._count_skipped(self._core.skipped_at_end())
                return None
            self._fetcher.check_running()
            self._since_yield = 0
            await self._fetcher.arrived.wait()
        raise ConsumerClosed(f"the consumer is closed: its block has been left; {OPEN_ANOTHER}")

    def _count_skipped(self, skipped: tuple[SkippedRange, ...]) -> None:
        self.skipped.extend(skipped)
        self.skipped_offsets += sum(each.count for each in skipped)

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
        self._rows = None
        self._fetcher.arrived.wake_all()


@asynccontextmanager
async def run_consumer(
    config: ConsumerConfig, link: ConsumeLink, rng: random.Random, addresses: tuple[str, ...]
) -> AsyncIterator[Consumer]:
    """Run a consumer over any link; open_consumer is this over gRPC."""
    fetcher = make_fetcher(config, link, rng, addresses)
    consumer = Consumer(config, fetcher)
    async with run_fetcher(fetcher, consumer.close):
        yield consumer
