"""What happened to a log since it was opened, counted."""

from __future__ import annotations

from attrs import define


@define
class LogCounters:
    """What happened since the log was opened.

    Attributes:
        batches_appended, bytes_appended: stored, pulled ones included.
        records_appended: stored for producers.
        duplicates: retries that were stored already.
        refused: batches that could not be stored.
        commits_failed: times that writing what waited failed.
        read_only_times: times that the log took no more records.
        commits: times that what waited was written and synced.
        segments_removed: by retention.
        after_log_times_not_followed: that producers asked for, too far ahead of the wall clock.
        pulled_log_times_not_followed: of pulled frames, too far ahead of the wall clock.
        wall_clock_jumps: how often the wall clock was set, forwards or back, by more than it drifts.
        bytes_scrubbed: read in the background, to find damage.
        damaged_places: found while reading.
    """

    batches_appended: int = 0
    records_appended: int = 0
    bytes_appended: int = 0
    duplicates: int = 0
    refused: int = 0
    commits: int = 0
    commits_failed: int = 0
    read_only_times: int = 0
    segments_removed: int = 0
    after_log_times_not_followed: int = 0
    pulled_log_times_not_followed: int = 0
    wall_clock_jumps: int = 0
    bytes_scrubbed: int = 0
    damaged_places: int = 0
