"""An embedded durable log: batches in, durable, and out again. It knows files, not networks.

A program under Trio uses it by the names that this module has; docs/how-to/embedded-log.md shows how. All else in here
is free to change. The names are loaded when they are first used: the client library needs a few modules from in here,
and must not load a log with them.

# Theory of operation

**What a log is.** A directory of segments with frames, in the order of their offsets. What it knows apart from them
(the next offset, what it has of each origin, the clock, what producers stored last) is its state, `state.py`. There are
two copies of the part that readers see: the *planned* state, after everything that was appended, and the *durable* one,
after everything that is synced. Appending builds on the planned, reading sees the durable.

**The way of a batch.**

1. `Log.append_soon` checks it, gives it its place in the planned state, and hands it over by way of the commit queue.
2. The committer's thread takes all that waits, writes it, and syncs once.
3. The host thread hears how many pieces are durable: `Log.committed`. It moves the durable state forward, and then
   answers what waited, in that order.

If a write fails, nothing that was planned behind it can be written as it is: all of it is answered, and taken back out
of the planned state where it is certain that it is not on the disk.

**Which states there are**, `room.py`: *open*; *full*, without room on the disk, which passes by itself; *read-only*,
until it is opened again, because it is not known what the disk has; and *closing*. Reading works in all of them.

**Who may change what.**

- The *host thread* (Trio's) owns the planned state, the commit queue, the counters, and every callback. It never waits
  for the disk.
- The *committer's thread* owns the newest segment's files and the list of segments: it alone writes and rolls. It is
  given all that it needs with the work, and changes no state.
- *Worker threads* read, scrub, remove files and repair. Readers begin with a copy of what is durable, taken under the
  lock in `durable.py`; the host thread changes it under the same lock. Retention and repair change files of segments
  that are not written any more, under the locks in `storage/catalog.py`, and what is known of them in the host thread.

**What always holds.**

- Nothing is acknowledged, read or cached in memory for readers before it is synced.
- `lowest_offset` and `next_offset` never go back, and no offset is used twice; nor is a sequence of an origin, or a log
  time under one origin, even if what it was given to was never written.
- The durable state is a beginning of the planned one: of each origin it holds no more, and no other frames.
- The queue's order is the order on the disk; what is durable of it is always its beginning.
- A failed sync is never tried again in the same opening: the kernel may take pages for written that are not.
- A segment that no offset was used in is never followed by another: segments are named by their first offset.
- What is damaged is named and never served; what is moved aside or cut away is named in the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proglog_trio.lazy_names import lazy_names

if TYPE_CHECKING:
    from proglog_trio.errors import (
        BatchRefused,
        DataDirectoryError,
        DataDirectoryFull,
        DataDirectoryHeld,
        DataDirectoryLost,
        DataDirectoryUnavailable,
        DataLoss,
        LogBusy,
        LogClosed,
        LogReadOnly,
        OffsetOutOfRange,
        OutcomeUnknown,
        OutOfRange,
        PayloadError,
        PositionError,
        ProducerSequenceTooOld,
        ProducerTableFull,
        ProglogError,
        RecordsGivenUp,
        RecordsMissing,
        SequenceOutOfRange,
    )
    from proglog_trio.log.batch import Appended, Batch
    from proglog_trio.log.chunk import Chunk, Skipped
    from proglog_trio.log.config import LogConfig
    from proglog_trio.log.counters import LogCounters
    from proglog_trio.log.format.damage import Damage
    from proglog_trio.log.format.origin import Origin
    from proglog_trio.log.format.position import Position, Range
    from proglog_trio.log.format.record import Record, unpack_records
    from proglog_trio.log.format.segment_files import SegmentFiles
    from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
    from proglog_trio.log.log import Log
    from proglog_trio.log.opening import open_log
    from proglog_trio.log.reader import LogReader
    from proglog_trio.log.sequence_gaps import SequenceGap

__all__ = [
    "Appended",
    "Batch",
    "BatchRefused",
    "Chunk",
    "Damage",
    "DamagedPlace",
    "DataDirectoryError",
    "DataDirectoryFull",
    "DataDirectoryHeld",
    "DataDirectoryLost",
    "DataDirectoryUnavailable",
    "DataLoss",
    "Log",
    "LogBusy",
    "LogClosed",
    "LogConfig",
    "LogCounters",
    "LogReadOnly",
    "LogReader",
    "OffsetOutOfRange",
    "Origin",
    "OutOfRange",
    "OutcomeUnknown",
    "PayloadError",
    "Position",
    "PositionError",
    "ProducerSequenceTooOld",
    "ProducerTableFull",
    "ProglogError",
    "Range",
    "Record",
    "RecordsGivenUp",
    "RecordsMissing",
    "SegmentFiles",
    "SequenceGap",
    "SequenceOutOfRange",
    "Skipped",
    "StoredFrame",
    "open_log",
    "unpack_records",
]

if not TYPE_CHECKING:  # or any other name would be typed as what this returns
    __getattr__ = lazy_names(
        __name__,
        {
            "proglog_trio.errors": (
                "BatchRefused DataDirectoryError DataDirectoryFull DataDirectoryHeld DataDirectoryLost "
                "DataDirectoryUnavailable DataLoss LogBusy LogClosed LogReadOnly OffsetOutOfRange OutOfRange "
                "OutcomeUnknown PayloadError PositionError ProducerSequenceTooOld ProducerTableFull ProglogError "
                "RecordsGivenUp RecordsMissing SequenceOutOfRange"
            ),
            "proglog_trio.log.batch": "Appended Batch",
            "proglog_trio.log.chunk": "Chunk Skipped",
            "proglog_trio.log.config": "LogConfig",
            "proglog_trio.log.counters": "LogCounters",
            "proglog_trio.log.format.damage": "Damage",
            "proglog_trio.log.format.origin": "Origin",
            "proglog_trio.log.format.position": "Position Range",
            "proglog_trio.log.format.record": "Record unpack_records",
            "proglog_trio.log.format.segment_files": "SegmentFiles",
            "proglog_trio.log.format.stored_frame": "DamagedPlace StoredFrame",
            "proglog_trio.log.log": "Log",
            "proglog_trio.log.opening": "open_log",
            "proglog_trio.log.reader": "LogReader",
            "proglog_trio.log.sequence_gaps": "SequenceGap",
        },
    )


def __dir__() -> list[str]:
    return [*globals(), *__all__]
