"""The batches that the loop has for a consumer's threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock

from proglog_trio.client.consumed_batch import ConsumedBatch, SkippedRange
from proglog_trio.client.sync.waiting import ThreadWaiters


class Arrivals:
    """A queue between the loop and threads, bounded in bytes; its first batch stays until the next is asked for.

    Attributes:
        ended: nothing more will come; and if not because all was given:
        error: why.
        skipped_at_end: what was left out behind the last batch.
    """

    def __init__(self, limit: int, tell: Callable[[], object]) -> None:
        """Begin empty.

        Args:
            limit: so many bytes may be here before has_room is False; at least one batch may.
            tell: wakes the loop, when has_room has become True after it was False.
        """
        self.ended = False
        self.error: Exception | None = None
        self.skipped_at_end: tuple[SkippedRange, ...] = ()
        self._limit = limit
        self._tell = tell
        self._lock = Lock()
        self._arrived = ThreadWaiters(self._lock)
        self._queue: deque[ConsumedBatch] = deque()
        self._bytes = 0
        # Whether the loop waits for room.
        self._full = False

    # -- what the loop's thread calls ----------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Tell whether another batch may be put here; if not, the loop is told when it may."""
        with self._lock:
            self._full = bool(self._queue) and self._bytes >= self._limit
            return not self._full

    def put(self, batch: ConsumedBatch) -> None:
        """Let threads have a batch."""
        with self._lock:
            self._bytes += batch.size
            self._queue.append(batch)
            self._arrived.wake_all()

    def end(self, error: Exception | None, skipped: tuple[SkippedRange, ...] = ()) -> None:
        """Put nothing more here; the first reason is kept."""
        with self._lock:
            if not self.ended:
                self.error, self.skipped_at_end, self.ended = error, skipped, True
            self._arrived.wake_all()

    # -- what threads call ---------------------------------------------------------------------------------------------

    def following(self, batch: ConsumedBatch | None) -> ConsumedBatch | None:
        """Return the batch after this one, which is not needed any more; None if there is none yet."""
        with self._lock:
            if self._queue and self._queue[0] is batch:
                size = batch.size
                # Nothing is called between the two: Ctrl-C comes before or after both.
                self._bytes -= size
                self._queue.popleft()
            if self._full and self._bytes <= self._limit // 2:
                self._tell()
                self._full = False
            return self._queue[0] if self._queue else None

    def wait_for_more_than(self, batch: ConsumedBatch | None, deadline: float | None) -> bool:
        """Wait until there is a batch that is not this one, or nothing more will come; False: not before a deadline."""

        def has_more() -> bool:
            return self.ended or bool(self._queue and (self._queue[0] is not batch or len(self._queue) > 1))

        return self._arrived.wait_until(has_more, deadline)
