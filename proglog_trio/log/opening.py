"""Opening a data directory as a log, and closing it in order.

```
open_log                 opens in a thread; yields the log
├── committer            one thread that writes: committer.py
└── maintain             disk watch, retention, running time, scrub: maintenance.py
```
"""

from __future__ import annotations

import errno
import queue
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import structlog
import trio

from proglog_trio.errors import (
    DataDirectoryError,
    DataDirectoryFull,
    DataDirectoryHeld,
    DataDirectoryUnavailable,
    SegmentError,
)
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log.commit_queue import CommitQueue
from proglog_trio.log.committer import Committer, HandedOver
from proglog_trio.log.config import LogConfig
from proglog_trio.log.counters import LogCounters
from proglog_trio.log.disk import Disk, File, OperatingSystemDisk, has_no_room
from proglog_trio.log.durable import DurableLog
from proglog_trio.log.findings import name_damage, say_what_was_found
from proglog_trio.log.format.clock import clamped
from proglog_trio.log.log import Log
from proglog_trio.log.maintenance import maintain
from proglog_trio.log.recovery import LOCK_FILE, LOG_DIRECTORY, Recovered, Recovery
from proglog_trio.log.room import Room
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.opening_number import next_opening
from proglog_trio.log.storage.retired_origins import RetiredOrigins
from proglog_trio.log.tail_cache import TailCache
from proglog_trio.log.watchers import Watchers
from proglog_trio.log.writer import LogWriter, Work

_logger = structlog.get_logger(__name__)


@asynccontextmanager
async def open_log(config: LogConfig, errors: InternalErrors | None = None) -> AsyncIterator[Log]:
    """Open a data directory's log for the time of an `async with`; leaving it commits what waits and closes it.

    Args:
        config: how it is kept.
        errors: where unforeseen errors are counted, but for those of the committer: these are raised, and end it all.

    Raises:
        DataDirectoryError: see open_log_files.
        DataDirectoryLost: the directory was removed or replaced meanwhile; in a group, as the nursery has it.
    """
    work: queue.SimpleQueue[HandedOver] = queue.SimpleQueue()
    log = await trio.to_thread.run_sync(partial(open_log_files, config, work.put, errors=errors))
    say_what_was_found(log)
    if log.read_only_reason is not None:
        _logger.error("the log is read-only", reason=log.read_only_reason)
    committer = Committer(log, work, trio.lowlevel.current_trio_token())
    stop_naming = name_damage(log)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_commit, log, committer)
            background = trio.CancelScope()
            nursery.start_soon(maintain, log, background)
            try:
                yield log
            finally:
                log.start_closing()
                work.put(None)
                background.cancel()
    finally:
        stop_naming()
        # All commits are over. What follows is short, and must happen even if everything around is being cancelled.
        with trio.CancelScope(shield=True):
            await _close(log)


async def _commit(log: Log, committer: Committer) -> None:
    """Commit in a thread until told to stop; however that ends, nothing waits for a commit then."""
    try:
        # A thread cannot be cancelled: it ends when it is told to, and the nursery waits for it. But it must be there
        # also when the nursery was cancelled before it had begun: a shielded append in the block waits for it.
        with trio.CancelScope(shield=True):
            await committer.run_until_told()
    finally:
        log.start_closing()
        log.fail_pending("the log is closed")


async def _close(log: Log) -> None:
    with log.errors.boundary(Where.RUNNING_TIME):
        try:
            await trio.to_thread.run_sync(log.running_time.note, log.wall_clock())
        except OSError as error:
            _logger.warning("how long the node has run cannot be kept", error=str(error))
    try:
        await trio.to_thread.run_sync(log.close)
    except OSError as error:
        _logger.error("the log could not be closed cleanly", error=str(error))


def wall_clock_milliseconds() -> int:
    """Return the wall clock's time, in milliseconds since the Unix epoch, as far as a log time can hold it."""
    try:
        return clamped(time.time_ns() // 1_000_000)
    except OverflowError:  # after the year 2262
        return clamped(int(time.time() * 1000))


def open_log_files(
    config: LogConfig,
    hand_over: Callable[[Sequence[Work]], None],
    *,
    disk: Disk | None = None,
    rng: random.Random | None = None,
    wall_clock: Callable[[], int] = wall_clock_milliseconds,
    monotonic_clock: Callable[[], float] = time.monotonic,
    errors: InternalErrors | None = None,
) -> Log:
    """Lock a data directory, recover it and return its log. Blocks.

    Args:
        config: how the log is kept.
        hand_over: is called with new work whenever there is some; Log.committed is to be called when it is done.
        disk: None: the real one.
        rng: makes salts, directory ids and origins; None: the system's own randomness.
        wall_clock: milliseconds since the Unix epoch.
        monotonic_clock: seconds; never goes back, from any thread.
        errors: where unforeseen errors of callbacks are counted; None: for this log alone.

    Raises:
        DataDirectoryError: the directory is not writable, of another cluster or of a newer format.
        DataDirectoryHeld: another node uses it.
        DataDirectoryFull: there is nothing in it yet, and no room on its disk to begin. A log that holds something is
            opened all the same, and takes records once there is room.
    """
    disk = disk if disk is not None else OperatingSystemDisk()
    rng = rng if rng is not None else random.SystemRandom()
    directory = config.directory
    errors = errors if errors is not None else InternalErrors()
    try:
        disk.make_directory(directory)
        # What was opened is closed again, the newest first, unless the log has it in the end.
        with ExitStack() as opened:
            lock = _lock(disk, config)
            opened.callback(lock.close)
            recovery = Recovery(
                disk,
                directory,
                config.cluster_name,
                config.index_interval_bytes,
                wall_clock(),
                rng,
                monotonic_clock,
                config.damaged_bytes,
                config.damaged_files,
            )
            recovered = recovery.run()
            opened.callback(recovered.active.close)
            log = _assemble(config, hand_over, disk, recovered, lock, rng, wall_clock, errors)
            opened.pop_all()
            return log
    except OSError as error:
        raise _kind(error)(f"{directory}: {_reason(error)}") from error
    except SegmentError as error:
        raise DataDirectoryError(f"{directory}: {error}") from error


def _reason(error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "there is no space left on its disk",
        errno.EDQUOT: "the disk quota is used up",
        errno.EACCES: "it is not writable",
        errno.EPERM: "it is not writable",
        errno.EROFS: "its file system is read-only",
        errno.ENOTDIR: "it is not a directory",
        errno.EEXIST: "it is not a directory",
    }
    known = reasons.get(error.errno or 0)
    return f"{known} ({error})" if known else str(error)


def _kind(error: OSError) -> type[DataDirectoryError]:
    if has_no_room(error):
        return DataDirectoryFull
    passing = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT)
    return DataDirectoryUnavailable if error.errno in passing else DataDirectoryError


def _lock(disk: Disk, config: LogConfig) -> File:
    try:
        return disk.lock(config.directory / LOCK_FILE)
    except BlockingIOError:
        raise DataDirectoryHeld(f"{config.directory} is locked: another node uses it") from None


def _assemble(
    config: LogConfig,
    hand_over: Callable[[Sequence[Work]], None],
    disk: Disk,
    recovered: Recovered,
    lock: File,
    rng: random.Random,
    wall_clock: Callable[[], int],
    errors: InternalErrors,
) -> Log:
    state, active = recovered.state, recovered.active
    catalog = SegmentCatalog(disk, config.index_interval_bytes, tuple(recovered.segments), active)
    for _, place in recovered.report.damaged:
        catalog.damage.report(active.files, place, "opening")
    oldest = recovered.segments[0]
    running = recovered.running_time.before
    if oldest.base_offset:
        # What the oldest segment's header says of an origin's next is the first sequence that may still be here.
        try:
            before = catalog.load(oldest).header.origins
        except SegmentError:
            before = {}  # Named when it is read; the bounds in the newest header serve meanwhile.
        for origin, known in before.items():
            if origin in state.origins:
                state.origins[origin] = state.origins[origin].raised(known.next, running)
    for origin, known_state in state.origins.items():
        if known_state.low >= known_state.next > 0 and known_state.emptied is None:
            # Since when is not known: no header was written after it, or a program of before wrote it.
            state.origins[origin] = known_state.raised(0, running)
    directory = config.directory
    opening = next_opening(disk, directory, rng)
    writer = LogWriter(
        disk, directory / LOG_DIRECTORY, catalog, directory / LOCK_FILE, lock.identity(), config.reserve_bytes
    )
    counters, room, running_time = LogCounters(), Room(config.reserve_bytes), recovered.running_time
    if recovered.completion is not None:
        room.failed(f"the log takes no records since it was opened on a disk without room: {recovered.obstacle}", 0)
        counters.read_only_times += 1
    tail_cache = TailCache(config.tail_cache_bytes, state.next_offset)
    retired_origins = RetiredOrigins(disk, directory)
    durable = DurableLog(catalog, state, running_time, counters, tail_cache, retired_origins, Watchers(errors))
    # Where only damage is left in the segment its offsets are used all the same, and it can be followed by another.
    frames = max(recovered.report.frames, int(state.next_offset > active.files.base_offset))
    commits = CommitQueue(
        config, state, durable, room, counters, errors, rng, hand_over, active.position, frames, recovered.completion
    )
    log = Log(
        config=config,
        report=recovered.report,
        writer=writer,
        catalog=catalog,
        running_time=running_time,
        wall_clock=wall_clock,
        room=room,
        durable=durable,
        counters=counters,
        errors=errors,
        opening=opening,
        state=state,
        queue=commits,
        rng=rng,
        lock_file=lock,
    )
    if config.reserve_bytes:
        log.looked_at_disk(writer.free_bytes())
    return log
