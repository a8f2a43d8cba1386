"""Opening a data directory as a log."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Sequence

from proglog_trio.errors import (
    DataDirectoryError,
    DataDirectoryFull,
    DataDirectoryHeld,
    DataDirectoryUnavailable,
    SegmentError,
)
from proglog_trio.log.config import LogConfig
from proglog_trio.log.disk import Disk, File, OperatingSystemDisk, has_no_room
from proglog_trio.log.log import Log, wall_clock_milliseconds
from proglog_trio.log.recovery import LOCK_FILE, LOG_DIRECTORY, Recovered, Recovery
from proglog_trio.log.storage.catalog import SegmentCatalog
from proglog_trio.log.storage.opening_number import next_opening
from proglog_trio.log.writer import LogWriter, Work


def _no_taker(work: Sequence[Work]) -> None:
    raise RuntimeError(f"nobody takes the log's work: {len(work)} pieces")


def open_log_files(
    config: LogConfig,
    *,
    disk: Disk | None = None,
    rng: random.Random | None = None,
    wall_clock: Callable[[], int] = wall_clock_milliseconds,
    monotonic_clock: Callable[[], float] = time.monotonic,
) -> Log:
    """Lock a data directory, recover it and return its log. Blocks.

    Args:
        config: how the log is kept.
        disk: None: the real one.
        rng: makes salts, directory ids and origins; None: the system's own randomness.
        wall_clock: milliseconds since the Unix epoch.
        monotonic_clock: seconds; never goes back, from any thread.

    Raises:
        DataDirectoryError: the directory is not writable, of another cluster or of a newer format.
        DataDirectoryHeld: another node uses it.
        DataDirectoryFull: there is nothing in it yet, and no room on its disk to begin. A log that holds something is
            opened all the same, and takes records once there is room.
    """
    disk = disk if disk is not None else OperatingSystemDisk()
    rng = rng if rng is not None else random.SystemRandom()
    directory = config.directory
    lock = None
    try:
        disk.make_directory(directory)
        lock = _lock(disk, config)
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
        try:
            return _assemble(config, disk, recovered, lock, rng, wall_clock)
        except BaseException:
            recovered.active.close()
            raise
    except OSError as error:
        if lock is not None:
            lock.close()
        raise _kind(error)(f"{directory}: {_reason(error)}") from error
    except SegmentError as error:
        if lock is not None:
            lock.close()
        raise DataDirectoryError(f"{directory}: {error}") from error
    except BaseException:
        if lock is not None:
            lock.close()
        raise


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
    disk: Disk,
    recovered: Recovered,
    lock: File,
    rng: random.Random,
    wall_clock: Callable[[], int],
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
    log = Log(
        config=config,
        opening=opening,
        report=recovered.report,
        writer=writer,
        catalog=catalog,
        state=state,
        lock_file=lock,
        rng=rng,
        wall_clock=wall_clock,
        running_time=recovered.running_time,
        lowest_offset=oldest.base_offset,
        next_offset=state.next_offset,
        durable_origins=dict(state.origins),
        on_work=_no_taker,
        planned_bytes=active.position,
        # Where only damage is left in the segment its offsets are used all the same, and it can be followed by another.
        planned_frames=max(recovered.report.frames, int(state.next_offset > active.files.base_offset)),
    )
    if recovered.completion is not None:
        log.complete_later(recovered.completion, str(recovered.obstacle))
    if config.reserve_bytes:
        log.looked_at_disk(writer.free_bytes())
    return log
