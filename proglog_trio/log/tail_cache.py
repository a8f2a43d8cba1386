"""The cache of the log's tail: the newest durable frames, which close followers are given without a read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from attrs import Factory, define

from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.pending_frame import PendingFrame

MAX_FRAMES = 4096


@define(repr=False)
class TailCache:
    """Frames of records in the order of their offsets. For the host thread alone.

    Attributes:
        max_bytes: of frames that are kept; 0: none are.
        start_offset: every durable frame of records that ends above this offset is here.
    """

    max_bytes: int
    start_offset: int
    # _ends[i] is the offset after _frames[i]: a list of its own, for bisecting. What stands before _first has been
    # dropped already; the lists are cut only when it is half of them, so that each frame is moved a bounded number of
    # times. _bytes is what the frames from _first on have.
    _frames: list[PendingFrame] = Factory(list)
    _ends: list[int] = Factory(list)
    _first: int = 0
    _bytes: int = 0

    def add(self, frame: PendingFrame) -> None:
        """Add the next frame that has become durable; the oldest go when there are too many, or too many bytes."""
        if frame.kind is not EnvelopeKind.RECORDS:
            return
        self._frames.append(frame)
        self._ends.append(frame.base_offset + frame.count)
        self._bytes += frame.length
        while self._first < len(self._frames) and (
            self._bytes > self.max_bytes or len(self._frames) - self._first > MAX_FRAMES
        ):
            self._bytes -= self._frames[self._first].length
            self.start_offset = self._ends[self._first]
            self._first += 1
        if self._first > len(self._frames) // 2:
            del self._frames[: self._first], self._ends[: self._first]
            self._first = 0

    def since(self, offset: int) -> Iterator[PendingFrame]:
        """Yield the frames that end above an offset, which must not be below start_offset."""
        for place in range(bisect_right(self._ends, offset, lo=self._first), len(self._frames)):
            yield self._frames[place]
