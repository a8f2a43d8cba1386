"""Writing a log: what the committer's thread does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import define, frozen

from .catalog import SegmentCatalog
from .disk import Disk
from .envelope import EnvelopeKind
from .segment import ActiveSegment, Unplaced, bare_envelope
from .segment_header import SegmentHeader


@frozen
class Roll:
    """Work for the writer: go on in a new segment."""

    header: SegmentHeader


Work = Unplaced | Roll


@define
class LogWriter:
    """Does a log's writing; one thread at a time may use it.

    Attributes:
        directory: where the segments are.
    """

    disk: Disk
    directory: Path
    catalog: SegmentCatalog

    def commit(self, work: Sequence[Work]) -> None:
        """Write work in its order and return when it is durable; raises OSError."""
        frames: list[Unplaced] = []
        for item in work:
            if isinstance(item, Roll):
                if frames:
                    self.catalog.active.commit(frames)
                    frames = []
                self._roll(item.header)
            else:
                frames.append(item)
        if frames:
            self.catalog.active.commit(frames)

    def _roll(self, header: SegmentHeader) -> None:
        before = self.catalog.active
        following = ActiveSegment.create(self.disk, self.directory, header, self.catalog.index_interval_bytes)
        self.catalog.make_active(following)
        before.finish()

    def close(self, *, cleanly: bool) -> None:
        """Close the active segment; cleanly: note in it that everything before is durable. Raises OSError."""
        active = self.catalog.active
        if not cleanly:
            active.close()
            return
        try:
            active.commit([bare_envelope(EnvelopeKind.CLOSED, active.next_offset)])
        except OSError:
            active.close()
            raise
        active.finish()
