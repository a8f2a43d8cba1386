"""What is done for an open log in the background, under Trio.

```
maintain
├── disk watch           looks twice a second whether there is room, and whether the directory is still there
├── retention            looks once in a while which segments may go
├── running time         keeps for how long nodes ran on the directory, notices when the wall clock jumps
└── scrub                reads the whole log, slowly, to find damage
```
"""

from __future__ import annotations

import structlog
import trio

from proglog_trio.errors import DataDirectoryLost
from proglog_trio.internal_errors import Where
from proglog_trio.log.findings import say_what_was_moved
from proglog_trio.log.log import Log
from proglog_trio.log.retention_service import keep_running_time, watch_retention
from proglog_trio.log.scrub import Scrub

DISK_WATCH_SECONDS = 0.5
"""What happens to the disk is noticed within a second."""

_logger = structlog.get_logger(__name__)


async def maintain(log: Log, scope: trio.CancelScope) -> None:
    """Do all that is to be done in the background, until the scope is cancelled; raises DataDirectoryLost."""
    config = log.config
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_disk, log)
            if config.retention_bytes is not None or config.retention_age is not None:
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
                # A disk that does not answer holds up a thread, but not the end of this.
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
                said = say_what_was_moved(log, *said)
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
        # A sector that cannot be read may stay so: what lies behind it would never be looked at.
        _logger.warning("the scrub cannot read a segment", segment=scrub.segment, error=str(error))
        scrub.close()
        return
    log.counters.bytes_scrubbed += scrub.bytes_read - before
    # Each is named by name_damage, when the registry has not heard of it before.
    log.counters.damaged_places += sum(not place.is_missing_index for _, place in found)
