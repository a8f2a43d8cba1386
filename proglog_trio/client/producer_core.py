"""What a producer sends, sends again and settles.

No I/O, and no clock of its own: every method that needs it is given now.

The rules it keeps, and why nothing is ever stored twice or out of order:

- A batch gets its sequence when it is first sent; the node stores each (producer id, sequence) once and refuses one
  that is below the last that it stored and not among the last five.
- At most five batches are under way, so every one of them is either new to the node or still in its table.
- Answers come in the order of the requests. When a stream ends, everything unanswered is sent again on the next one in
  the same order, beginning with the first. The old stream's requests may still be read by the node while the new one's
  are: whichever of the two comes second is the duplicate.
- The next stream may go to another node. If the first node had stored a batch whose answer was lost, the batch is then
  stored twice, under two origins, each time behind those that were sent before it; consumers deliver one of them.
- A node that takes no records at present (it is read-only, which has a status of its own) is left for another at once,
  and the batch fails when no known node is left. So is one whose table of producers is full; but the statuses for what
  another node may yet do can also say that a batch has been overtaken there by a later one, which can only be where it
  had been sent before: then it fails at once.
- A refusal is certain: nothing of the batch is stored by that attempt. A node that cannot tell says UNKNOWN, which is
  as good as no answer.
- A batch that is given up is never sent again. If it was sent before, the stream is dropped with it, since its answer
  must not be taken for that of another. Should the node find it later in the old stream, behind its successors, it is
  below their sequence and refused: given up means "maybe stored", never "stored at a node behind what came later".
- Deadlines grow with the order of the batches, so they are given up from the front.
- A status that ends the stream and blames a request (too large, not allowed) does not say which. The batches that were
  under way are then sent one at a time, until the one that ends the stream alone is known, and that one fails.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet

from proglog_trio._proto.log.v1 import Error, ProduceBatchResponse
from proglog_trio.backoff import Backoff
from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.delivery import BatchOutcome, FailureLedger
from proglog_trio.client.errors import DeliveryError, DeliveryRefused, producing_next
from proglog_trio.client.observed_times import ObservedTimes
from proglog_trio.client.packing import ARRAY_HEADER_BYTES, join_records
from proglog_trio.client.pending import OpenBatch, PendingBatch, ProducerStatistics
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode

_READ_ONLY = StatusCode.ABORTED
"""What a node answers that takes no records at present, and has stored nothing of the batch."""
_ELSEWHERE = frozenset({StatusCode.FAILED_PRECONDITION, StatusCode.RESOURCE_EXHAUSTED})
"""What a node answers to a batch that another node may yet store, unless it means that it was overtaken there."""


class ProducerCore:
    """The state of one producer: one open batch, a queue of closed ones, of which the first few are under way.

    Attributes:
        node: the address of the node that the present stream goes to, or the last one went to.
        ledger: what failed without having been told.
        backoff: the waits between streams; it begins anew whenever a node settles a batch.
        buffered_bytes: of the records of the open batch and of all in the queue, packed.
        obstacle: why the last stream ended; None once an answer came after it.
    """

    def __init__(
        self,
        config: ProducerConfig,
        producer_id: int,
        rng: random.Random,
        has_others: Callable[[AbstractSet[str]], bool] = lambda _nodes: False,
    ) -> None:
        """Begin with nothing to send; has_others tells whether there is a node to go to besides some."""
        self.config = config
        self.node = ""
        self._has_others = has_others
        self.producer_id = producer_id
        self.ledger = FailureLedger()
        self.backoff = Backoff(config.backoff, rng)
        self.statistics = ProducerStatistics()
        self.buffered_bytes = 0
        self.obstacle: StreamBroken | None = None
        # Comes behind all of the queue, and is closed before anything else is put there.
        self._open: OpenBatch | None = None
        # In the order in which they were closed, which is that of their deadlines. Those that have a sequence come
        # first, and their sequences follow one another. Removed from the front alone, when they are settled.
        self._queue: deque[PendingBatch] = deque()
        # So many of the first in the queue were sent on the present stream and not answered; 0 without one.
        self._under_way = 0
        # Whether there is a present stream.
        self._streaming = False
        # One of so many of the first in the queue made a node refuse a whole stream. While there are any, one batch is
        # under way at a time, so that the next refusal says which.
        self._suspects = 0
        # Of the next batch that is encoded. A sequence is given once, also where its batch is given up: the next one
        # must not be taken for it.
        self._next_sequence = 0
        self._observed = ObservedTimes()
        # When the present stream last gave an answer, or, with nothing under way before, was sent something to answer.
        self._last_progress = -math.inf
        self._acknowledgement = config.acknowledgement.message()

    # -- records come in -----------------------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes may be added now. An empty buffer takes anything."""
        return not self.buffered_bytes or self.buffered_bytes + size <= self.config.buffer_bytes

    def join_open_batch(self, packed: bytes) -> tuple[BatchOutcome, int] | None:
        """Add one packed record to the open batch, if there is one that stays open with it; else return None.

        This changes nothing that next_wake or ready say, which is why it is apart from add_record.
        """
        batch = self._open
        if batch is None:
            return None
        size = batch.size + len(packed)
        index = len(batch.records)
        if size >= self.config.batch_bytes or index + 1 >= self.config.batch_records:
            return None
        batch.records.append(packed)
        batch.size = size
        self.buffered_bytes += len(packed)
        return batch.outcome, index

    def add_record(self, packed: bytes, now: float) -> tuple[BatchOutcome, int]:
        """Add one packed record; returns its batch's outcome and its index in it."""
        batch = self._open
        if batch is not None and batch.size + len(packed) > self.config.batch_bytes:
            self.close_batch()
            batch = None
        if batch is None:
            batch = self._open = OpenBatch(BatchOutcome(self.ledger), now)
        index = len(batch.records)
        batch.records.append(packed)
        batch.size += len(packed)
        self.buffered_bytes += len(packed)
        if batch.size >= self.config.batch_bytes or index + 1 >= self.config.batch_records:
            self.close_batch()
        return batch.outcome, index

    def add_payload(self, payload: bytes, count: int, now: float, outcome: BatchOutcome | None = None) -> BatchOutcome:
        """Add a whole batch behind everything that was added before; return its outcome, a new one unless one is given.

        The delivery timeout counts from now, which may be when the batch's first record was collected elsewhere. It
        must be no less than that of the batch before.
        """
        self.close_batch()
        outcome = BatchOutcome(self.ledger) if outcome is None else outcome
        self._queue.append(PendingBatch(payload, count, len(payload), outcome, now + self.config.delivery_timeout))
        self.buffered_bytes += len(payload)
        return outcome

    def close_batch(self) -> None:
        """Let the open batch, if there is one, take no more records, so that it is sent as soon as there is room."""
        batch = self._open
        if batch is None:
            return
        self._open = None
        payload = join_records(batch.records)
        size = batch.size - ARRAY_HEADER_BYTES
        deadline = batch.since + self.config.delivery_timeout
        self._queue.append(PendingBatch(payload, len(batch.records), size, batch.outcome, deadline))

    def observe(self, log_time: int) -> None:
        """Make the log time of whatever is first sent from now on greater than this one; see ObservedTimes.

        Raises:
            ValueError: it is no log time.
        """
        self._observed.add(log_time)

    @property
    def unsettled(self) -> bool:
        """Whether any record waits for its acknowledgement."""
        return bool(self._queue) or self._open is not None

    @property
    def last_outcome(self) -> BatchOutcome | None:
        """The outcome that is settled last of all that were added so far, or None when all are settled."""
        if self._open is not None:
            return self._open.outcome
        return self._queue[-1].outcome if self._queue else None

    # -- batches go out ------------------------------------------------------------------------------------------------

    @property
    def _window(self) -> int:
        return 1 if self._suspects else self.config.in_flight

    def _ripe(self, now: float) -> bool:
        return self._open is not None and now >= self._open.since + self.config.linger

    @property
    def refused_by(self) -> AbstractSet[str]:
        """The nodes that are of no use at present, since they cannot store the batch that is next."""
        return self._queue[0].refused_by if self._queue else frozenset()

    def stream_opened(self, now: float, node: str = "") -> None:
        """Begin to send on a new stream to a node, from the first unanswered batch on."""
        if self._streaming:
            raise RuntimeError("one stream at a time")
        if self.statistics.streams and node != self.node:
            self.statistics.moves += 1
            self._observed.moved()
        self.node = node
        self._streaming = True
        self._under_way = 0
        self._last_progress = now
        self.statistics.streams += 1

    def ready(self, now: float) -> bool:
        """Tell whether next_request would return one."""
        if not self._streaming or self._under_way >= self._window:
            return False
        return len(self._queue) > self._under_way or self._ripe(now)

    def next_request(self, now: float) -> bytes | None:
        """Return the next ProduceBatchRequest to send on the present stream, or None if there is none now."""
        if not self.ready(now):
            return None
        if len(self._queue) == self._under_way:
            self.close_batch()
        batch = self._queue[self._under_way]
        if not self._under_way:
            self._last_progress = now
        self._under_way += 1
        batch.attempts += 1
        if batch.sequence is None:
            # Not before it is first sent: what is observed until then counts for it, and a batch that is given up
            # before uses up no sequence.
            batch.encode(self.producer_id, self._next_sequence, self._acknowledgement, self._observed.greatest())
            self._next_sequence += 1
        else:
            self.statistics.resent += 1
        return batch.request

    # -- answers come in -----------------------------------------------------------------------------------------------

    def answered(self, answer: ProduceBatchResponse, now: float) -> None:
        """Settle the first batch that is under way with the node's answer, a ProduceBatchResponse.

        Raises:
            StreamBroken: the stream is to be dropped and everything unanswered sent again.
        """
        if not self._under_way:
            raise StreamBroken("the node answered a batch that was not sent")
        batch = self._queue[0]
        if answer.producer_sequence != batch.sequence:
            raise StreamBroken(f"the node answered batch {answer.producer_sequence}, batch {batch.sequence} was next")
        if answer.error is not None:
            self._answered_with_error(batch, answer.error)
        else:
            delivered = batch.stored(answer, self.node)
            self._settle_first()
            if not answer.duplicate:
                # A duplicate has the log time of the attempt that stored it, which may have been at another node.
                self._observed.answered(batch.after_log_time, answer.log_time)
            self.statistics.delivered += batch.count
            self.statistics.duplicates += answer.duplicate
            batch.outcome.succeed(delivered)
        self.obstacle = None
        self._last_progress = now

    def _answered_with_error(self, batch: PendingBatch, error: Error) -> None:
        status = StatusCode(error.code)
        failure = StreamBroken(f"{status.name}: {error.message}", status)
        if failure.refusal is None and status is not _READ_ONLY:
            # Not certain: it may be stored, and is sent again as if nothing had been answered.
            raise failure
        batch.refusals += 1
        # A node that it had been sent to before may mean that it has stored what comes after it, see above.
        if status is _READ_ONLY or (status in _ELSEWHERE and self.node not in batch.nodes):
            batch.refused_by |= {self.node}
            if self._has_others(batch.refused_by):
                raise StreamBroken(f"{self.node}: {failure}")
        self._refuse_first(failure, status)

    def stream_lost(self, failure: StreamBroken) -> None:
        """Begin to wait for another stream: the present one, or the attempt to open one, ended."""
        under_way, self._under_way = self._under_way, 0
        for index in range(under_way):
            self._queue[index].nodes |= {self.node}
        self._streaming = False
        self.obstacle = failure
        status = failure.refusal
        if status is None:
            return
        if under_way == 1:
            self._queue[0].refusals += 1
            self._refuse_first(failure, status)
        elif under_way:
            self._suspects = under_way
        else:
            # Not a request but the stream itself was refused: each batch would be, in turn.
            self.close_batch()
            while self._queue:
                self._refuse_first(failure, status)

    def _remove_first(self) -> PendingBatch:
        batch = self._queue.popleft()
        self.buffered_bytes -= batch.size
        self._under_way = max(self._under_way - 1, 0)
        self._suspects = max(self._suspects - 1, 0)
        return batch

    def _settle_first(self) -> PendingBatch:
        self.backoff.succeeded()
        return self._remove_first()

    def _fail(self, batch: PendingBatch, error: DeliveryError) -> None:
        self.statistics.failed += batch.count
        batch.outcome.fail(error, batch.count)

    def _refuse_first(self, failure: StreamBroken, status: StatusCode) -> None:
        batch = self._settle_first()
        message = f"the node refused the batch: {failure}{producing_next(status)}"
        # An earlier attempt, whose answer was lost, may have fared better.
        self._fail(batch, DeliveryRefused(message, maybe_stored=batch.maybe_stored, status=status))

    # -- time passes ---------------------------------------------------------------------------------------------------

    def next_wake(self) -> float:
        """Return when tick has something to do; infinity if nothing is waited for."""
        wake = math.inf
        if self._open is not None:
            if self._streaming and self._under_way < self._window and len(self._queue) == self._under_way:
                wake = self._open.since + self.config.linger
            wake = min(wake, self._open.since + self.config.delivery_timeout)
        if self._queue:
            wake = min(wake, self._queue[0].deadline)
        if self._under_way:
            wake = min(wake, self._last_progress + self.config.answer_timeout)
        return wake

    def tick(self, now: float) -> StreamBroken | None:
        """Close what has lingered and give up what is too late.

        Returns why the present stream must be dropped, or None if it may go on. A stream that must be dropped counts as
        lost at once: its answers are not to be handed in any more.
        """
        if self._open is not None and now >= self._open.since + self.config.delivery_timeout:
            self.close_batch()
        given_up_under_way = 0
        while self._queue and now >= self._queue[0].deadline:
            given_up_under_way += self._under_way > 0
            batch = self._remove_first()
            self._fail(batch, batch.timed_out(self.config.delivery_timeout, self.obstacle))
        if given_up_under_way:
            failure = StreamBroken(f"no answer within {self.config.delivery_timeout:g} s")
        elif self._under_way and now >= self._last_progress + self.config.answer_timeout:
            failure = StreamBroken(f"no answer for {self.config.answer_timeout:g} s")
        else:
            if self._ripe(now) and self.ready(now):
                self.close_batch()
            return None
        self.stream_lost(failure)
        return failure

    def abandon(self) -> None:
        """Fail everything that is not settled: the producer is left."""
        self.close_batch()
        self._streaming = False
        while self._queue:
            batch = self._remove_first()
            self._fail(batch, batch.abandoned())
