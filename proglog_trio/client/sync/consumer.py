"""The consumer for threads. What it reads is fetched as for tasks; batches cross to threads in arrivals.py."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from os import getpid
from threading import Lock

import anyio
import anyio.lowlevel
import attrs

from proglog_trio.client.config import ConsumerConfig
from proglog_trio.client.consumed_batch import ConsumedBatch, ConsumedRecord, SkippedRange, new_tuple
from proglog_trio.client.consumer import REMEMBERED_SKIPS
from proglog_trio.client.errors import OPEN_ANOTHER, ConsumerClosed, MalformedRecord
from proglog_trio.client.fetcher import Fetcher, make_fetcher, run_fetcher
from proglog_trio.client.prefetch import MIN_PREFETCH_BYTES
from proglog_trio.client.sync.arrivals import Arrivals
from proglog_trio.client.sync.client_thread import ClientThread
from proglog_trio.client.sync.waiting import deadline_after
from proglog_trio.log.format.headers import NO_HEADERS
from proglog_trio.log.format.origin import Origin
from proglog_trio.rpc.calls.sessions import ConsumeLink
from proglog_trio.waiters import Waiters

MAX_AT_A_STRETCH = 64
"""So many batches cross before the loop does something else."""


class BatchIterator:
    """Iterates over a consumer's batches."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> ConsumedBatch:
        batch = self._consumer.next_batch()
        if batch is None:
            raise StopIteration
        return batch


class Consumer:
    """Reads records from one node at a time, in the order of its log. Made by open_consumer.

    When the node fails it goes on at another, by position: what comes next is what follows there, in that node's order.

    ``for record in consumer`` and ``for batch in consumer.batches()`` go on from one another, and from where an
    iteration before was left, by ``break`` or by an error. Several threads may read from one consumer: each record or
    batch goes to one of them, and ``position`` is behind all that went to any.

    Ctrl-C may come when a record or batch has been taken and before your program has it; ``position`` is behind it
    then. A program that goes on after Ctrl-C keeps the position of what it has worked on, see ConsumedBatch.position.

    Attributes:
        config: what it was told.
        skipped: the last 1000 ranges that were left out with on_missing="skip".
        skipped_offsets: how many offsets it left out in all.
    """

    def __init__(self, config: ConsumerConfig, fetcher: Fetcher, arrivals: Arrivals, thread: ClientThread) -> None:
        self.config = config
        self.skipped: deque[SkippedRange] = deque(maxlen=REMEMBERED_SKIPS)
        self.skipped_offsets = 0
        self._fetcher = fetcher
        self._core = fetcher.core
        self._arrivals = arrivals
        self._thread = thread
        self._pid = thread.pid
        # Guards what follows; nothing is waited for while it is held.
        self._lock = Lock()
        self._closed = False
        self._told_end = False
        # The batch that is being delivered, and how many of its records were; a batch with none left stays until the
        # next one is here, since the position is told from it.
        self._batch: ConsumedBatch | None = None
        self._delivered = 0
        # Of that batch, for the iteration over records: its rows, and what all of its records have in common.
        self._rows: Sequence[object] = ()
        self._common = (0, Origin(bytes(16)), 0, 0, "")

    # -- reading -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Consumer:
        """Iterate over the records; leaving an iteration by ``break`` leaves nothing behind.

        Raises:
            MalformedRecord: something stored is no record; iterating again goes on after it.
            StartOutOfRange, RecordsLost: no node has the next records; see ConsumerConfig.on_missing.
            NodeUnreachable: no connection to any node for reconnect_timeout.
            ConsumerError: a node refused for another reason.
            ConsumerClosed: the consumer's block has been left.
            ClientForked: this is a fork of the process that opened the consumer.
        """
        return self

    def __next__(self) -> ConsumedRecord:
        if getpid() != self._pid:
            raise self._thread.forked()
        while True:
            with self._lock:
                rows, index = self._rows, self._delivered
                if index < len(rows):
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
            if (batch := self._next_current(None)) is None:
                raise StopIteration
            self._begin(batch)

    def _begin(self, batch: ConsumedBatch) -> None:
        """Unpack the batch that is being delivered, unless another thread has delivered it meanwhile."""
        with self._lock:
            if self._batch is not batch or self._delivered >= batch.count or self._closed:
                return
            try:
                rows = batch.rows()
            except MalformedRecord:
                # No row can be read: the whole batch is malformed, and what comes next is behind it.
                self._delivered = batch.count
                raise
            self._common = batch.base_offset, batch.origin, batch.base_sequence, batch.log_time, batch.node
            self._rows = rows

    def _unusual(self, index: int) -> ConsumedRecord:
        if self._batch is None:
            raise RuntimeError("rows belong to a batch")
        return self._batch.record(index)

    def batches(self) -> BatchIterator:
        """Iterate over the batches as their producers packed them: the fastest way to read; raises as ``__iter__``.

        A batch counts as delivered when it is given out; MalformedRecord comes from its own methods.
        """
        return BatchIterator(self)

    def next_batch(self, timeout: float | None = None) -> ConsumedBatch | None:
        """Return what is left of the batch that is being delivered, or else the next one; None at the end.

        Args:
            timeout: how many seconds to wait for it; 0 returns what is there.

        Raises:
            TimeoutError: none came within the timeout; the next call goes on.
        """
        if getpid() != self._pid:
            raise self._thread.forked()
        deadline = deadline_after(timeout)
        while (batch := self._next_current(deadline)) is not None:
            with self._lock:
                delivered = self._delivered
                # Else another thread has taken it meanwhile.
                if self._batch is batch and delivered < batch.count:
                    rest = batch.part(delivered) if delivered else batch
                    self._delivered = batch.count
                    return rest
        return None

    @property
    def position(self) -> bytes | None:
        """The position after the last record that was delivered, to go on from here, on this node or any other.

        None before the first answer, for a consumer that did not begin at a position.
        """
        batch, delivered = self._place()
        if batch is not None:
            return batch.encoded_position_after(delivered)
        core = self._core
        return None if core.start is None else core.start.encode(core.start_window.encode())

    @property
    def next_offset(self) -> int | None:
        """The offset after the last record that was delivered, in the log of its node; None when none was."""
        batch, delivered = self._place()
        return None if batch is None else batch.base_offset + delivered

    @property
    def end_offset(self) -> int | None:
        """The end of the log of reading_from, as of its last answer; None before the first."""
        return self._core.end_offset

    @property
    def node(self) -> str | None:
        """The address of the node that the last delivered record was read from; None when none was delivered."""
        batch, _ = self._place()
        return None if batch is None else batch.node

    @property
    def reading_from(self) -> str:
        """The address of the node that is read from now, or tried; what was delivered may come from one before."""
        return self._fetcher.nodes.current

    @property
    def nodes(self) -> tuple[str, ...]:
        """The addresses of all nodes that the consumer may read from: those it was given, and those it was told of."""
        return self._thread.ask(self._fetcher.known)

    @property
    def cluster_name(self) -> str | None:
        """The name of the cluster whose nodes are used: the configured one, or that of the first node that said it."""
        return self._fetcher.nodes.cluster.name

    @property
    def obstacle(self) -> str | None:
        """Why no node could be read from the last time that was tried; None once one was reached since."""
        return self._fetcher.obstacle

    @property
    def search_failure(self) -> str | None:
        """Why the last question for other nodes was not answered; None if it was, or none was asked."""
        return self._fetcher.nodes.search_failure

    @property
    def duplicate_records(self) -> int:
        """How many records were left out because they were copies of others, under another origin.

        Those among what was read ahead count.
        """
        return self._core.duplicate_records

    def _place(self) -> tuple[ConsumedBatch | None, int]:
        if getpid() != self._pid:
            # The lock may be held by a thread that is not in this process, for ever.
            raise self._thread.forked()
        with self._lock:
            return self._batch, self._delivered

    def _next_current(self, deadline: float | None) -> ConsumedBatch | None:
        """Return the batch that has records left to deliver, once there is one; None at the end."""
        while True:
            with self._lock:
                if self._closed:
                    raise ConsumerClosed(f"the consumer is closed: its block has been left; {OPEN_ANOTHER}")
                batch = self._batch
                if batch is not None and self._delivered < batch.count:
                    return batch
                following = self._arrivals.following(batch)
                if following is not None:
                    # Nothing is called between these: Ctrl-C comes before or after all of them.
                    self._batch, self._delivered, self._rows = following, 0, ()
                    self._count_skipped(following.skipped)
                    return following
                if self._arrivals.ended:
                    if self._arrivals.error is not None:
                        raise self._arrivals.error.with_traceback(None)
                    if not self._told_end:
                        self._told_end = True
                        self._count_skipped(self._arrivals.skipped_at_end)
                    return None
            if not self._arrivals.wait_for_more_than(batch, deadline):
                raise TimeoutError("no batch arrived within the time given for the wait; another may find one")

    def _count_skipped(self, skipped: tuple[SkippedRange, ...]) -> None:
        self.skipped.extend(skipped)
        self.skipped_offsets += sum(each.count for each in skipped)

    def close(self) -> None:
        """Deliver nothing more; called by the loop's thread."""
        with self._lock:
            self._closed = True
            self._rows = ()
        self._arrivals.end(ConsumerClosed(f"the consumer is closed: its block has been left; {OPEN_ANOTHER}"))


def fetching_config(config: ConsumerConfig) -> ConsumerConfig:
    """Return the configuration of what fetches: half of what is held is on its side, half on that of the threads."""
    return attrs.evolve(config, prefetch_bytes=max(config.prefetch_bytes // 2, MIN_PREFETCH_BYTES))


class ConsumerRun:
    """A consumer's async side: what its thread runs.

    Attributes:
        consumer: what threads call, once the thread is ready.
    """

    def __init__(
        self, config: ConsumerConfig, link: ConsumeLink, rng: random.Random, addresses: tuple[str, ...]
    ) -> None:
        self.thread = ClientThread("consumer", self.run)
        self.consumer: Consumer | None = None
        self._config = config
        # Both halves together hold what the configuration allows.
        fetching = fetching_config(config)
        self._arguments = fetching, link, rng, addresses
        self._room = Waiters()
        rest = max(config.prefetch_bytes - fetching.prefetch_bytes, 1)
        self._arrivals = Arrivals(rest, lambda: self.thread.call_soon(self._room.wake_all))

    async def run(self, thread: ClientThread) -> None:
        """Open a fetcher and pass on what it fetches, until the thread is left."""
        fetcher = make_fetcher(*self._arguments)
        consumer = Consumer(self._config, fetcher, self._arrivals, thread)
        async with run_fetcher(fetcher, consumer.close), anyio.create_task_group() as tasks:
            tasks.start_soon(self._pass_on, fetcher)
            self.consumer = consumer
            thread.ready()
            await thread.until_left()
            consumer.close()
            tasks.cancel_scope.cancel()

    async def _pass_on(self, fetcher: Fetcher) -> None:
        core = fetcher.core
        at_a_stretch = 0
        while True:
            batch = fetcher.next_batch()
            if batch is not None:
                self._arrivals.put(batch)
                at_a_stretch += 1
                if at_a_stretch >= MAX_AT_A_STRETCH:
                    at_a_stretch = 0
                    await anyio.lowlevel.checkpoint()
                while not self._arrivals.has_room():
                    await self._room.wait()
                continue
            if core.error is not None:
                return self._arrivals.end(core.error)
            if core.ended:
                return self._arrivals.end(None, core.skipped_at_end())
            try:
                fetcher.check_running()
            except ConsumerClosed as error:
                return self._arrivals.end(error)
            at_a_stretch = 0
            await fetcher.arrived.wait()
