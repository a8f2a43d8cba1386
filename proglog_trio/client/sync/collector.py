"""What threads have sent and the loop has not taken over yet: where records become batches.

Threads add under a lock, and wake the loop once a batch: when the first record of it comes, so that its linger is
watched, and when it takes no more. The loop takes over whole batches.

Ctrl-C is raised in the main thread after any call that it makes, also while it holds the lock. So each step below that
a thread takes is one that may be the last: a record or a payload is in with one append, the loop is told before that
and not after, and what a batch takes more than it says is counted when it is taken over.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from copy import copy
from threading import Lock
from typing import TypeVar

from attrs import define, field

from proglog_trio.client.config import ProducerConfig
from proglog_trio.client.delivery import FailureLedger
from proglog_trio.client.errors import ClientForked, ProducerClosed
from proglog_trio.client.observed_times import ObservedTimes
from proglog_trio.client.packing import ARRAY_HEADER_BYTES, join_records
from proglog_trio.client.sync.delivery import OutcomeOwner, ThreadOutcome
from proglog_trio.client.sync.waiting import ThreadWaiters, deadline_after

MAX_BATCHES = 4096
"""So many batches may be unsettled before ``send`` waits: each is some hundred bytes, however small its records are."""
MAX_TAKEN = 4
"""So many batches are taken over at a stretch; each is joined and given its CRC on the loop."""

Added = TypeVar("Added")


@define(eq=False)
class CollectedBatch:
    """Records that threads have sent.

    Attributes:
        since: when the first of them came.
        records: each packed by itself, or else
        payload: all of them, and
        count: how many.
        size: in bytes.
        closed: it takes no more records.
    """

    outcome: ThreadOutcome
    since: float
    records: list[bytes] = field(factory=list)
    payload: bytes = b""
    count: int = 0
    size: int = 0
    closed: bool = False

    def complete(self) -> bool:
        """Say how many and how large its records are, and join them; return whether there are any."""
        if self.records:
            self.count = len(self.records)
            self.size = sum(map(len, self.records))
            self.payload = join_records(self.records)
            self.records = []
        return self.count > 0


@define(eq=False)
class _Turn:
    """The place of a thread among those that wait for room; over when it waits no more."""

    over: bool = False


class Collector:
    """Collects records of one producer.

    Attributes:
        lock: guards all of it.
        ledger: what failed without having been told.
        closed_because: why nothing more may be added; None while more may be.
    """

    def __init__(
        self,
        config: ProducerConfig,
        clock: Callable[[], float],
        tell: Callable[[], object],
        pid: int,
        forked: Callable[[], ClientForked],
    ) -> None:
        """Begin with nothing.

        Args:
            config: how large batches become, how long they linger, and how much there may be in all.
            clock: in seconds, the loop's.
            tell: has the loop call next_due, from any thread.
            pid: of the producer's process.
            forked: makes the error for another process.
        """
        self.lock = Lock()
        self.ledger = FailureLedger()
        self.closed_because: str | None = None
        self._config = config
        self._clock = clock
        self._tell = tell
        self._owner = OutcomeOwner(self.lock, self._settled, pid, forked)
        # The last one may take more records; all others do not.
        self._batches: deque[CollectedBatch] = deque()
        self._collected_bytes = 0
        # Of what was taken over and is not settled.
        self._taken_bytes = 0
        self._taken_batches = 0
        self._last_taken: ThreadOutcome | None = None
        self._observed = ObservedTimes()
        # Whether the loop was told, and has not looked since.
        self._told = False
        # Who waits for room, in the order of coming: a small record does not pass a large one that waits.
        self._turns: deque[_Turn] = deque()
        self._room = ThreadWaiters(self.lock)

    # -- what threads call ---------------------------------------------------------------------------------------------

    def add_record(self, packed: bytes, timeout: float | None) -> tuple[ThreadOutcome, int]:
        """Add one packed record when there is room; returns its batch's outcome and its index in it.

        Raises:
            ProducerClosed: nothing may be added any more.
            TimeoutError: there was no room within so many seconds.
        """
        size = len(packed)
        with self.lock:
            if self.closed_because is None and not self._turns and self._has_room(size):
                return self._join(packed, size)
        return self._in_turn(size, lambda: self._join(packed, size), timeout)

    def add_payload(self, payload: bytes, count: int, timeout: float | None) -> ThreadOutcome:
        """Add a whole batch, as add_record."""
        size = len(payload)
        with self.lock:
            if self.closed_because is None and not self._turns and self._has_room(size):
                return self._append(payload, count)
        return self._in_turn(size, lambda: self._append(payload, count), timeout)

    def close_batch(self) -> ThreadOutcome | None:
        """Have what lingers sent now; return the outcome that is settled last of what was added, None if all is."""
        with self.lock:
            self._close_open()
            for batch in reversed(self._batches):
                if batch.records or batch.count:
                    return batch.outcome
            return self._last_taken if self._taken_batches else None

    def observe(self, log_time: int) -> None:
        """Have what is added from now on later than a log time; raises ValueError if it is none."""
        with self.lock:
            observed = copy(self._observed)
            observed.add(log_time)
            self._observed = observed

    def report(self) -> None:
        """Raise RecordsNotDelivered if records failed whose failure no thread was told."""
        with self.lock:
            self.ledger.report()

    @property
    def held_bytes(self) -> int:
        """How many bytes of records are not settled."""
        return self._taken_bytes + self._collected_bytes

    def _has_room(self, size: int) -> bool:
        held = self._taken_bytes + self._collected_bytes
        if held and held + size > self._config.buffer_bytes:
            return False
        return self._taken_batches + len(self._batches) < MAX_BATCHES

    def _tell_once(self) -> None:
        if not self._told:
            self._tell()
            self._told = True

    def _new_batch(self) -> CollectedBatch:
        return CollectedBatch(ThreadOutcome(self.ledger, owner=self._owner), self._clock())

    def _join(self, packed: bytes, size: int) -> tuple[ThreadOutcome, int]:
        config = self._config
        batch = self._batches[-1] if self._batches else None
        if batch is None or batch.closed or batch.size + size + ARRAY_HEADER_BYTES > config.batch_bytes:
            batch = self._new_batch()
            self._tell_once()
            self._batches.append(batch)
        index = len(batch.records)
        grown = batch.size + size
        if grown + ARRAY_HEADER_BYTES >= config.batch_bytes or index + 1 >= config.batch_records:
            self._tell_once()
            batch.closed = True
        batch.records.append(packed)
        batch.size = grown
        self._collected_bytes += size
        return batch.outcome, index

    def _append(self, payload: bytes, count: int) -> ThreadOutcome:
        batch = self._new_batch()
        batch.payload, batch.count, batch.size, batch.closed = payload, count, len(payload), True
        self._tell_once()
        size = batch.size
        self._collected_bytes += size
        self._batches.append(batch)
        return batch.outcome

    def _close_open(self) -> None:
        if self._batches and not self._batches[-1].closed:
            self._tell_once()
            self._batches[-1].closed = True

    def _in_turn(self, size: int, add: Callable[[], Added], timeout: float | None) -> Added:
        """Add something when there is room and all that waited before have been added."""
        turn = _Turn()
        added: list[Added] = []

        def add_if_there_is_room() -> bool:
            if self.closed_because is not None:
                raise ProducerClosed(f"the producer is closed: {self.closed_because}; open another one to send more")
            self._drop_turns()
            if self._turns[0] is not turn or not self._has_room(size):
                self._close_open()
                return False
            added.append(add())
            return True

        try:
            with self.lock:
                self._turns.append(turn)
            if not self._room.wait_until(add_if_there_is_room, deadline_after(timeout)):
                raise TimeoutError(
                    f"no room for {size} bytes within {timeout:g} s: {self.held_bytes} bytes are not acknowledged, of "
                    f"{self._config.buffer_bytes} that buffer_bytes allows; it was not handed in"
                )
            return added[0]
        finally:
            # First, and without a call: whoever looks next drops it, if Ctrl-C keeps this thread from doing so.
            turn.over = True
            with self.lock:
                if turn in self._turns:
                    self._turns.remove(turn)
                self._room.wake_all()

    def _drop_turns(self) -> None:
        while self._turns[0].over:
            self._turns.popleft()

    # -- what the loop's thread calls ----------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when take has something to return, in the past if it has now; None if nothing is waited for."""
        with self.lock:
            self._told = False
            if not self._batches:
                return None
            if self._batches[0].closed or len(self._batches) > 1:
                return -math.inf
            if self._taken_batches >= self._config.in_flight:
                # It would not be sent anyway, and may grow meanwhile.
                return None
            return self._batches[0].since + self._config.linger

    def take_observed(self) -> tuple[int, ...]:
        """Take over the log times that what is taken next is to be later than."""
        with self.lock:
            observed, self._observed = self._observed, ObservedTimes()
            return observed.times

    def take(self, *, everything: bool = False) -> list[CollectedBatch]:
        """Take over the first batches that are due; empty if none is."""
        taken: list[CollectedBatch] = []
        with self.lock:
            linger = math.inf if self._taken_batches >= self._config.in_flight else self._config.linger
            while self._batches and len(taken) < MAX_TAKEN:
                batch = self._batches[0]
                due = everything or batch.closed or len(self._batches) > 1
                if not due and self._clock() < batch.since + linger:
                    break
                self._batches.popleft()
                self._collected_bytes -= batch.size
                if batch.complete():
                    self._taken_bytes += batch.size
                    self._taken_batches += 1
                    self._last_taken = batch.outcome
                    batch.outcome.size = batch.size
                    taken.append(batch)
            if not self._batches:
                self._collected_bytes = 0
        return taken

    def _settled(self, size: int) -> None:
        self._taken_bytes -= size
        self._taken_batches -= 1
        self._room.wake_all()
        if self._batches:
            self._tell_once()

    def close(self, why: str) -> None:
        """Let nothing more be added, and say why; the first reason is kept."""
        with self.lock:
            if self.closed_because is None:
                self.closed_because = why
            self._room.wake_all()
