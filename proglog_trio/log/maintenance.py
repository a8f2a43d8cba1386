"""A log under Trio: the committer's thread, retention, and opening and closing in order.

```
open_log                 opens in a thread; yields the log
├── committer            one thread: takes all work that waits, writes it, syncs once, and says so to the host thread
├── disk watch           looks twice a second whether there is room, and whether the directory is still there
├── retention            looks once in a while which segments may go
├── running time         keeps for how long nodes ran on the directory, notices when the wall clock jumps
└── scrub                reads the whole log, slowly, to find damage
```
"""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
import trio
from attrs import Factory, define

from proglog_trio.errors import DataDirectoryLost
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS
from proglog_trio.log.format.damage import Damage
from proglog_trio.log.log import Log
from proglog_trio.log.opening import open_log_files
from proglog_trio.log.retention_service import keep_running_time, watch_retention
from proglog_trio.log.scrub import Scrub
from proglog_trio.log.storage.running_time import CLOCK_JUMP_MILLISECONDS
from proglog_trio.log.writer import CommitFailed, LogWriter, Work

DISK_WATCH_SECONDS = 0.5
"""What happens to the disk is noticed within a second."""

MAX_NAMED_PLACES = 1000
"""So many damaged places that readers and the scrub find are named in the log output; all are counted."""

_logger = structlog.get_logger(__name__)


_Handed = Sequence[Work] | bool | None
"""What the committer is given: work; True: what comes from now on is to be done again; None: the end."""


@define
class _Committer:
    """The thread that commits. Work goes in by a queue, results come back by run_sync_soon.

    Attributes:
        failure: after this nothing more is committed, and all ends: what nobody foresaw, so that it is not known what
            is durable, or that the directory is not there any more.
    """

    log: Log
    token: trio.lowlevel.TrioToken
    # Bounded by the log's pending_bytes_limit: no more work is handed over than that.
    work: queue.SimpleQueue[_Handed] = Factory(queue.SimpleQueue)
    failure: Exception | None = None

    async def run_until_told(self) -> None:
        """Commit until told to stop.

        Raises:
            Exception: what nobody foresaw. The log cannot keep its promise, so the node must end: it is caught nowhere.
            DataDirectoryLost: neither can it then.
        """
        # It has a limiter of its own, so that it takes no place of the threads that the rest of the program shares.
        own = trio.CapacityLimiter(1)
        await trio.to_thread.run_sync(self.run, self.log.writer, thread_name="log committer", limiter=own)
        if self.failure is not None:
            raise self.failure

    def run(self, writer: LogWriter) -> None:
        """Commit until told to stop; in the thread."""
        stopping = failed = False
        while not stopping:
            batch: list[Work] = []
            item = self.work.get()
            while True:
                if item is None:
                    stopping = True
                    break
                if item is True:
                    # What came before was planned on top of what failed, and has been answered.
                    batch.clear()
                    failed = False
                elif not isinstance(item, bool):
                    batch.extend(item)
                try:
                    item = self.work.get_nowait()
                except queue.Empty:
                    break
            if not batch or failed:
                continue
            durable = len(batch)
            error: Exception | None = None
            try:
                writer.commit(batch)
            except CommitFailed as caught:
                durable, error, failed = caught.durable, caught, True
                if isinstance(caught.reason, DataDirectoryLost):
                    self.failure, stopping = caught.reason, True
            except Exception as unforeseen:  # noqa: BLE001 - raised by run_until_told, once those who wait were answered
                durable, error, failed = 0, unforeseen, True
                self.failure, stopping = unforeseen, True
            self.token.run_sync_soon(self._committed, durable, error)

    def _committed(self, count: int, error: Exception | None) -> None:
        try:
            self.log.committed(count, error)
            if error is not None:
                _logger.error("the log is read-only: a write failed", error=str(error), why=self.log.read_only_reason)
            if isinstance(error, CommitFailed) and error.may_go_on:
                self.work.put(True)
        except Exception as unforeseen:  # noqa: BLE001 - raised by run_until_told
            # What is durable and what was answered may differ now.
            self.failure = unforeseen
            self.log.committed(0, unforeseen)
            self.work.put(None)


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
    log = await trio.to_thread.run_sync(open_log_files, config)
    if errors is not None:
        log.errors = errors
    _say_what_was_found(log)
    if log.read_only_reason is not None:
        _logger.error("the log is read-only", reason=log.read_only_reason)
    committer = _Committer(log, trio.lowlevel.current_trio_token())
    log.on_work = committer.work.put
    stop_naming = _name_damage(log)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_commit, log, committer)
            background = trio.CancelScope()
            nursery.start_soon(_run_background, log, background)
            try:
                yield log
            finally:
                log.start_closing()
                committer.work.put(None)
                background.cancel()
    finally:
        stop_naming()
        # All commits are over. What follows is short, and must happen even if everything around is being cancelled.
        with trio.CancelScope(shield=True):
            await _close(log)


async def _commit(log: Log, committer: _Committer) -> None:
    """Commit in a thread until told to stop; however that ends, nobody waits for a commit then."""
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


def _say_what_was_found(log: Log) -> None:
    report = log.report
    for segment, place in report.damaged:
        _logger.error("acknowledged records are damaged", segment=str(segment), damage=str(place))
    for lost in report.lost:
        _logger.error("acknowledged records are lost", detail=lost)
    _say_what_was_moved(log, 0, 0)
    for repaired in report.repaired:
        _logger.warning("the log was repaired", detail=repaired)
    _logger.info(
        "log opened",
        directory=str(log.config.directory),
        segments=report.segments,
        lowest_offset=log.lowest_offset,
        next_offset=log.next_offset,
    )
    stamp, wall = log.running_time.last_stamp, log.wall_clock()
    if stamp is not None and wall < stamp.wall - CLOCK_JUMP_MILLISECONDS:
        _logger.warning(
            "the wall clock is behind where it was when this directory was last open: it is wrong, or it was",
            behind_seconds=(stamp.wall - wall) / 1000,
        )
    if log.log_time_ahead > FURTHEST_AHEAD_MILLISECONDS:
        _logger.warning(
            "log time is ahead of the wall clock, which is wrong, or was",
            log_time_ahead_seconds=log.log_time_ahead / 1000,
        )


def _say_what_was_moved(log: Log, moved: int, removed: int) -> tuple[int, int]:
    """Log what was moved aside, and what went for that, beyond so many that have been logged; return how many then."""
    report = log.report
    for each in report.moved_aside[moved:]:
        _logger.warning(
            "an unreadable tail was moved aside; it was possibly acknowledged",
            moved_to=str(each.path),
            bytes=each.size,
            from_offset=each.from_offset,
            detail=each.detail,
        )
    gone = report.aside.removed if report.aside is not None else []
    for path, size in gone[removed:]:
        _logger.warning("an old file that had been moved aside was removed", path=str(path), bytes=size)
    if report.aside is not None and report.aside.trouble is not None:
        _logger.warning("old files that had been moved aside cannot be removed", error=str(report.aside.trouble))
        report.aside.trouble = None
    return len(report.moved_aside), len(gone)


def _name_damage(log: Log) -> Callable[[], None]:
    """Name in the log output what is found to be damaged from now on; return what ends that."""
    token = trio.lowlevel.current_trio_token()
    named = 0

    def name(damage: Damage) -> None:
        nonlocal named
        named += 1
        if named <= MAX_NAMED_PLACES and damage.place.is_missing_index:
            _logger.warning(
                "an index file is missing, and is made anew from its segment", index=str(damage.files.index)
            )
        elif named <= MAX_NAMED_PLACES:
            _logger.error(
                "acknowledged records are damaged",
                segment=str(damage.files.store),
                damage=str(damage.place),
                found_by=damage.found_by,
            )

    def name_safely(damage: Damage) -> None:
        # What run_sync_soon runs must not raise, or all ends.
        with log.errors.boundary(Where.LOG_CALLBACK):
            name(damage)

    # Damage is found in the threads that read.
    return log.damage.watch(lambda damage: token.run_sync_soon(name_safely, damage))


async def _run_background(log: Log, scope: trio.CancelScope) -> None:
    config = log.config
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_disk, log)
            if config.retention_bytes is not None or config.retention_seconds is not None:
                nursery.start_soon(watch_retention, log)
            nursery.start_soon(keep_running_time, log)
            if config.scrub_bytes_per_second is not None:
                nursery.start_soon(_scrub, log, config.scrub_bytes_per_second)


async def _watch_disk(log: Log) -> None:
    """Look whether there is room on the disk, and whether what the log is in is still there.

    Raises:
        DataDirectoryLost: it is not. Nothing that the log holds can be relied upon, so that all must end.
    """
    writer, trouble = log.writer, ""
    said = len(log.report.moved_aside), len(log.report.aside.removed) if log.report.aside is not None else 0

    def look() -> int:
        writer.check_place()
        return writer.free_bytes()

    turns = log.errors.turns(Where.DISK_WATCH)
    while True:
        lost: DataDirectoryLost | None = None
        async with turns:
            try:
                # A disk that does not answer holds up a thread, and nobody who ends this.
                free = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
            except DataDirectoryLost as error:
                lost = error
            except OSError as error:
                if str(error) != trouble:
                    _logger.warning("it cannot be told how much is free on the disk", error=str(error))
                trouble = str(error)
            else:
                trouble = ""
                before = log.read_only_reason
                log.looked_at_disk(free)
                _say_what_changed(log, before, free)
                said = _say_what_was_moved(log, *said)
        if lost is not None:
            log.lose(str(lost))
            raise lost
        await trio.sleep(DISK_WATCH_SECONDS)


def _say_what_changed(log: Log, before: str | None, free: int) -> None:
    if before is None and log.read_only_reason is not None:
        _logger.error("the log is read-only", reason=log.read_only_reason, free_bytes=free)
    elif before is not None and log.read_only_reason is None:
        _logger.warning("the log takes records again", free_bytes=free)


async def _scrub(log: Log, bytes_per_second: int) -> None:
    turns = log.errors.turns(Where.SCRUB)
    while True:
        began = trio.current_time()
        async with turns:
            scrub = Scrub(log.catalog)
            try:
                while not scrub.finished:
                    # A second's worth at a time, so that the disk is left alone in between.
                    await trio.sleep(1)
                    boundary = log.errors.boundary(Where.SCRUB)
                    with boundary:
                        await _scrub_step(log, scrub, bytes_per_second)
                    if boundary.failed:
                        scrub.close()  # and go on with the next segment
            finally:
                scrub.close()
            await trio.sleep_until(began + log.config.scrub_interval_seconds)


async def _scrub_step(log: Log, scrub: Scrub, size: int) -> None:
    before = scrub.bytes_read
    try:
        found = await trio.to_thread.run_sync(scrub.step, size)
    except OSError as error:
        _logger.warning("the scrub cannot read the log", error=str(error))
        scrub.finished = True
        return
    log.counters.bytes_scrubbed += scrub.bytes_read - before
    # Each is named by _name_damage, when the registry has not heard of it before.
    log.counters.damaged_places += sum(not place.is_missing_index for _, place in found)
