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

from proglog_trio._proto.log.v1 import ProduceBatchRequest, ProduceBatchResponse
from proglog_trio.backoff import Backoff
from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.delivery import BatchOutcome, DeliveredBatch, FailureLedger
from proglog_trio.client.errors import (
    DeliveryAbandoned,
    DeliveryError,
    DeliveryRefused,
    DeliveryTimeout,
)
from proglog_trio.client.observed_times import ObservedTimes
from proglog_trio.client.packing import ARRAY_HEADER_BYTES, join_records
from proglog_trio.client.pending import OpenBatch, PendingBatch, ProducerStatistics
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.record import payload_crc
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode
from proglog_trio.rpc.messages.protobuf import bytes_field_header

_PAYLOAD_FIELD = 1
_READ_ONLY = StatusCode.ABORTED
"""What a node answers that takes no records at present, and has stored nothing of the batch."""
_ELSEWHERE = frozenset({StatusCode.FAILED_PRECONDITION, StatusCode.RESOURCE_EXHAUSTED})
"""What a node answers to a batch that another node may yet store, unless it means that it was overtaken there."""


class ProducerCore:
    """The state of one producer: one open batch, a queue of closed ones, of which the first few are under way.

    Attributes:
        node: the address of the node that the present stream goes to, or the last one went to.
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
        self._open: OpenBatch | None = None
        self._queue: deque[PendingBatch] = deque()
        self._under_way = 0
        self._streaming = False
        self._suspects = 0
        self._next_sequence = 0
        self._observed = ObservedTimes()
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

    def add_payload(self, payload: bytes, count: int, now: float) -> BatchOutcome:
        """Add a whole batch behind everything that was added before."""
        self.close_batch()
        outcome = BatchOutcome(self.ledger)
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
            batch.sequence = self._next_sequence
            self._next_sequence += 1
            batch.request = self._encode(batch, batch.sequence)
            batch.payload = b""
        else:
            self.statistics.resent += 1
        return batch.request

    def _encode(self, batch: PendingBatch, sequence: int) -> bytes:
        batch.after_log_time = self._observed.greatest()
        rest = ProduceBatchRequest(
            count=batch.count,
            payload_crc=payload_crc(batch.payload),
            producer_id=self.producer_id,
            producer_sequence=sequence,
            acknowledgement=self._acknowledgement,
            after_log_time=batch.after_log_time,
        )
        # The payload is written by itself, and so copied once: a quarter of the time.
        header = bytes_field_header(_PAYLOAD_FIELD, len(batch.payload))
        return b"".join((header, batch.payload, bytes(rest)))

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
            status = StatusCode(answer.error.code)
            failure = StreamBroken(f"{status.name}: {answer.error.message}", status)
            if failure.refusal is None and status is not _READ_ONLY:
                raise failure
            batch.refusals += 1
            if status is _READ_ONLY or (status in _ELSEWHERE and self.node not in batch.nodes):
                batch.refused_by |= {self.node}
                if self._has_others(batch.refused_by):
                    raise StreamBroken(f"{self.node}: {failure}")
            self._refuse_first(failure, status)
        else:
            if answer.count != batch.count:
                raise StreamBroken(f"the node answered {answer.count} records for a batch of {batch.count}")
            try:
                origin = Origin.parse(answer.origin)
            except ValueError as error:
                raise StreamBroken(f"the node's answer has no origin: {error}") from None
            self._take_first()
            if not answer.duplicate:
                self._observed.answered(batch.after_log_time, answer.log_time)
            self.statistics.delivered += batch.count
            self.statistics.duplicates += answer.duplicate
            batch.outcome.succeed(
                DeliveredBatch(
                    answer.base_offset,
                    batch.count,
                    origin,
                    answer.base_sequence,
                    answer.log_time,
                    answer.achieved,
                    answer.reached,
                    answer.duplicate,
                    self.node,
                )
            )
        self.obstacle = None
        self._last_progress = now

    def stream_lost(self, failure: StreamBroken) -> None:
        """Take note that the present stream, or the attempt to open one, ended."""
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

    def _take_first(self) -> PendingBatch:
        batch = self._queue.popleft()
        self.buffered_bytes -= batch.size
        self._under_way = max(self._under_way - 1, 0)
        self._suspects = max(self._suspects - 1, 0)
        self.backoff.succeeded()
        return batch

    def _fail(self, batch: PendingBatch, error: DeliveryError) -> None:
        self.statistics.failed += batch.count
        batch.outcome.fail(error, batch.count)

    def _refuse_first(self, failure: StreamBroken, status: StatusCode) -> None:
        batch = self._take_first()
        message = f"the node refused the batch: {failure}"
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
        lost at
        once: its answers are not to be handed in any more.
        """
        if self._open is not None and now >= self._open.since + self.config.delivery_timeout:
            self.close_batch()
        given_up_under_way = 0
        while self._queue and now >= self._queue[0].deadline:
            given_up_under_way += self._under_way > 0
            self._give_up_first()
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

    def _give_up_first(self) -> None:
        batch = self._queue.popleft()
        self.buffered_bytes -= batch.size
        self._under_way = max(self._under_way - 1, 0)
        self._suspects = max(self._suspects - 1, 0)
        timeout = self.config.delivery_timeout
        reason = "" if self.obstacle is None else f" ({self.obstacle})"
        if batch.maybe_stored:
            message = f"no acknowledgement within {timeout:g} s{reason}: the records may be stored or not"
        elif batch.attempts:
            message = f"no node took them within {timeout:g} s{reason}: the records are not stored"
        else:
            message = f"not sent within {timeout:g} s{reason}: the records are not stored"
        self._fail(batch, DeliveryTimeout(message, maybe_stored=batch.maybe_stored))

    def abandon(self) -> None:
        """Fail everything that is not settled: the producer is left."""
        self.close_batch()
        self._streaming = False
        self._under_way = 0
        while self._queue:
            batch = self._queue.popleft()
            self.buffered_bytes -= batch.size
            state = "was sent and may be stored or not" if batch.maybe_stored else "is not stored"
            message = f"the producer was left before its batch was acknowledged; it {state}"
            self._fail(batch, DeliveryAbandoned(message, maybe_stored=batch.maybe_stored))
