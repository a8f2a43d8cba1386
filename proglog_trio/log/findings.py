"""Saying in the log output what opening a log found, and what is found to be damaged later."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from proglog_trio.internal_errors import Where
from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS
from proglog_trio.log.format.damage import Damage
from proglog_trio.log.log import Log
from proglog_trio.log.storage.running_time import CLOCK_JUMP_MILLISECONDS

MAX_NAMED_PLACES = 1000
"""So many damaged places that readers and the scrub find are named in the log output; all are counted."""

_logger = structlog.get_logger(__name__)


def say_what_was_found(log: Log) -> None:
    """Log what opening found, and what its clocks say."""
    report = log.report
    for segment, place in report.damaged:
        _logger.error("acknowledged records are damaged", segment=str(segment), damage=str(place))
    for lost in report.lost:
        _logger.error("acknowledged records are lost", detail=lost)
    say_what_was_moved(log, 0, 0)
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


def say_what_was_moved(log: Log, moved: int, removed: int) -> tuple[int, int]:
    """Log what was moved aside and removed, beyond so many of each that have been logged; return how many then."""
    report = log.report
    for each in report.moved_aside[moved:]:
        _logger.warning(
            "an unreadable tail was moved aside; it was possibly acknowledged",
            moved_to=str(each.path),
            bytes=each.size,
            from_offset=each.from_offset,
            detail=each.detail,
        )
    removed_files = report.aside.removed if report.aside is not None else []
    for path, size in removed_files[removed:]:
        _logger.warning("an old file that had been moved aside was removed", path=str(path), bytes=size)
    if report.aside is not None and report.aside.trouble is not None:
        _logger.warning("old files that had been moved aside cannot be removed", error=str(report.aside.trouble))
        report.aside.trouble = None
    return len(report.moved_aside), len(removed_files)


def name_damage(log: Log) -> Callable[[], None]:
    """Name in the log output what is found to be damaged from now on; return what ends that."""
    token = trio.lowlevel.current_trio_token()
    named = 0

    def name(damage: Damage) -> None:
        nonlocal named
        named += 1
        if named <= MAX_NAMED_PLACES and damage.place.is_missing_index:
            _logger.warning(
                "an index file or its end is missing, and is made anew from its segment", index=str(damage.files.index)
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
