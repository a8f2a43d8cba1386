"""How a log is kept."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen


@frozen
class LogConfig:
    """How a log is kept.

    Attributes:
        directory: the data directory.
        cluster_name: kept in every segment; a directory of another name is refused.
        segment_bytes, segment_frames: a segment that has reached either is followed by a new one. Opening reads one
            segment.
        retention_bytes: the oldest segments go while the rest holds at least this much; None: never.
        retention_age: a segment goes when programs have had the log open for so many seconds since the one after it was
            begun; None: never.
        max_batch_bytes: the largest payload.
        index_interval_bytes: how far apart entries of the sparse index are.
        tail_cache_bytes: how many bytes of the newest frames are kept in memory for peers that follow the log closely.
        max_pending_bytes: how many bytes may wait for their commit before appends have to wait.
        reserve_bytes: the log takes no records while less than this is free on its disk; 0: it may fill the disk.
        damaged_bytes, damaged_files: how much of what opening could not read is kept aside; the oldest goes first.
        scrub_bytes_per_second: how fast the whole log is read in the background to find damage; None: not at all.
        scrub_interval_seconds: how long after its beginning a pass of the scrub is followed by the next.
    """

    directory: Path
    cluster_name: str = "proglog"
    segment_bytes: int = 64 << 20
    segment_frames: int = 50_000
    retention_bytes: int | None = None
    retention_age: float | None = None
    max_batch_bytes: int = (4 << 20) - (64 << 10)
    index_interval_bytes: int = 32 << 10
    tail_cache_bytes: int = 8 << 20
    max_pending_bytes: int = 64 << 20
    reserve_bytes: int = 0
    damaged_bytes: int = 1 << 30
    damaged_files: int = 100
    scrub_bytes_per_second: int | None = 4 << 20
    scrub_interval_seconds: float = 24 * 3600.0
