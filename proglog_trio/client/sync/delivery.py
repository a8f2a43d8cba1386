"""What became of records that threads have sent: the handles that a producer for threads gives out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock

from attrs import define, field, frozen

from proglog_trio.client.delivery import BatchOutcome, Delivered, DeliveredBatch, all_delivered
from proglog_trio.client.errors import ClientForked, DeliveryError
from proglog_trio.client.sync.waiting import ThreadWaiters, deadline_after


@frozen
class OutcomeOwner:
    """What all outcomes of one producer share.

    Attributes:
        lock: guards them, and the producer's ledger.
        settled: called with a batch's size when it is settled, while the lock is held, by the loop's thread.
        pid: of the process of the producer.
        forked: makes the error for another process.
    """

    lock: Lock
    settled: Callable[[int], None]
    pid: int
    forked: Callable[[], ClientForked]


@define(eq=False)
class ThreadOutcome(BatchOutcome):
    """What becomes of one batch; settled by the loop's thread, waited for by any other.

    Attributes:
        size: of the batch, in bytes, once it is on its way.
    """

    owner: OutcomeOwner = field(kw_only=True)
    size: int = 0
    _threads: ThreadWaiters | None = None

    def succeed(self, delivered: DeliveredBatch) -> None:
        """Settle it: stored."""
        with self.owner.lock:
            super().succeed(delivered)
            self._tell()

    def fail(self, error: DeliveryError, count: int) -> None:
        """Settle it: not acknowledged, all count records of it."""
        with self.owner.lock:
            super().fail(error, count)
            self._tell()

    def _tell(self) -> None:
        self.owner.settled(self.size)
        if self._threads is not None:
            self._threads.wake_all()

    def _is_settled(self) -> bool:
        return self.delivered is not None or self.error is not None

    def wait_settled(self, deadline: float | None) -> bool:
        """Wait in a thread until it is known, or a deadline; return whether it is.

        Raises:
            ClientForked: this is a fork of the producer's process, where it may never be known.
        """
        if self._is_settled():
            return True
        if os.getpid() != self.owner.pid:
            raise self.owner.forked()
        with self.owner.lock:
            if self._threads is None:
                self._threads = ThreadWaiters(self.owner.lock)
            threads = self._threads
        return threads.wait_until(self._is_settled, deadline)

    def result_within(self, deadline: float | None) -> DeliveredBatch:
        """Wait as wait_settled, and return where the batch is stored; raises its error, or TimeoutError."""
        watched = False
        try:
            if not self._is_settled():
                with self.owner.lock:
                    watched = True
                    self._watchers += 1
                if not self.wait_settled(deadline):
                    raise TimeoutError("no acknowledgement within the time given for the wait; it may still come")
            # The ledger, which an error leaves, is the producer's.
            if self.error is None or os.getpid() != self.owner.pid:
                return self.result()
            with self.owner.lock:
                return self.result()
        finally:
            if watched and os.getpid() == self.owner.pid:
                with self.owner.lock:
                    self._watchers -= 1


@define(eq=False)
class Delivery:
    """What becomes of one record."""

    _outcome: ThreadOutcome
    _index: int

    @property
    def settled(self) -> bool:
        """Whether ``wait`` would return or raise at once."""
        return self._outcome.settled

    def wait(self, timeout: float | None = None) -> Delivered:
        """Wait for the acknowledgement. May be called any number of times, by any thread.

        Args:
            timeout: in seconds; None: as long as it takes, which the producer's delivery_timeout bounds.

        Raises:
            DeliveryTimeout, DeliveryRefused, DeliveryAbandoned: the record was not acknowledged.
            TimeoutError: it is not known within the timeout; another ``wait`` may learn it.
            ClientForked: this is a fork of the producer's process, and it was not known before.
        """
        return self._outcome.result_within(deadline_after(timeout)).record(self._index)


@frozen
class ThreadBatchPart:
    """Records that follow one another in one batch: [first, first + count) of it."""

    outcome: ThreadOutcome
    first: int
    count: int


@define(eq=False)
class BatchDelivery:
    """What becomes of many records that were sent by one call; one or more batches."""

    _parts: Sequence[ThreadBatchPart]

    @property
    def count(self) -> int:
        """How many records it is about."""
        return sum(part.count for part in self._parts)

    @property
    def settled(self) -> bool:
        """Whether ``wait`` would return or raise at once."""
        return all(part.outcome.settled for part in self._parts)

    def wait(self, timeout: float | None = None) -> tuple[DeliveredBatch, ...]:
        """Wait until all records are acknowledged and return where they are, in the order in which they were sent.

        Args:
            timeout: in seconds, for all of them; see Delivery.wait.

        Raises:
            DeliveryTimeout, DeliveryRefused, DeliveryAbandoned: some were not; this is the first one's error. See
                ``outcomes``.
            TimeoutError, ClientForked: see Delivery.wait.
        """
        return all_delivered(self.outcomes(timeout))

    def outcomes(self, timeout: float | None = None) -> tuple[DeliveredBatch | DeliveryError, ...]:
        """Wait until everything is settled; return, for each batch in order, where it is or its error.

        Raises:
            TimeoutError, ClientForked: see Delivery.wait.
        """
        deadline = deadline_after(timeout)
        results: list[DeliveredBatch | DeliveryError] = []
        for part in self._parts:
            try:
                results.append(part.outcome.result_within(deadline).part(part.first, part.count))
            except DeliveryError as error:
                results.append(error)
        return tuple(results)
