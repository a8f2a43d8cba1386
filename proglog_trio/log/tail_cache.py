"""The newest durable frames, kept in memory: peers that follow the log closely are given them without a read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from attrs import Factory, define

from proglog_trio.log.format.envelope import EnvelopeKind
from proglog_trio.log.format.pending_frame import PendingFrame

MAX_FRAMES = 4096


@define(repr=False)
class RecentFrames:
    """Frames of records in the order of their offsets. For the host thread alone.

    Attributes:
        max_bytes: of frames that are kept; 0: none are.
        start_offset: every frame that ends above this offset is here.
    """

    max_bytes: int
    start_offset: int
    _frames: list[PendingFrame] = Factory(list)
    _ends: list[int] = Factory(list)
    _first: int = 0
    _bytes: int = 0

    def add(self, frame: PendingFrame) -> None:
        """Take the next frame that has become durable."""
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
