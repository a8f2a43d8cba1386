"""What retention could not do, or does later than the wall clock would have it."""

from __future__ import annotations

from attrs import Factory, define

from proglog_trio.log.format.segment_files import SegmentFiles


@define
class RetentionState:
    """What is left of retention's last look.

    Attributes:
        unremoved: segments that the log has forgotten and whose files are still there, oldest first.
        overdue_milliseconds: by how much the oldest segment is older than it may get by the wall clock, although by
            running time it is not; 0 if the two agree.
        problem: why files could not be removed, as the disk says it; None: they could.
    """

    unremoved: list[SegmentFiles] = Factory(list)
    overdue_milliseconds: int = 0
    problem: str | None = None
