"""Retention and time under Trio: looking what may go, and keeping count of how long the node runs."""

from __future__ import annotations

import structlog
import trio

from proglog_trio.internal_errors import Where
from proglog_trio.log.log import Log
from proglog_trio.log.retention import is_due_to_roll, overdue_milliseconds, removable, remove_files
from proglog_trio.log.storage.running_time import WallClockWatch

RETENTION_INTERVAL_SECONDS = 10.0
RUNNING_TIME_SECONDS = 10.0
"""How often the running time is kept; what a crash costs of it at most."""
OVERDUE_SECONDS = 60.0
"""Retention that the wall clock finds late by more than this is told of; looks and writes take time as well."""

_logger = structlog.get_logger(__name__)


async def watch_retention(log: Log) -> None:
    """Remove what may go, once in a while, until cancelled."""
    turns = log.errors.turns(Where.RETENTION)
    while True:
        async with turns:
            await apply_retention(log)
            if is_due_to_roll(log.catalog, log.config, log.running_time):
                log.roll()
            await trio.sleep(RETENTION_INTERVAL_SECONDS)


async def apply_retention(log: Log) -> int:
    """Remove the segments that retention lets go; return how many.

    Files that could not be removed are tried again at the next look: the log has forgotten them already.
    """
    state = log.retention
    count = 0
    try:
        found = await trio.to_thread.run_sync(removable, log.catalog, log.config, log.running_time)
        if found is not None:
            forgotten = log.durable.forget_segments(*found)
            state.unremoved.extend(forgotten)
            count = len(forgotten)
            _logger.info("retention removes segments", segments=count, lowest_offset=log.lowest_offset)
        while state.unremoved:
            oldest = state.unremoved[0]
            await trio.to_thread.run_sync(remove_files, log.catalog, [oldest])
            if state.unremoved and state.unremoved[0] == oldest:
                del state.unremoved[0]
        overdue = await trio.to_thread.run_sync(overdue_milliseconds, log.catalog, log.config, log.wall_clock())
    except OSError as error:
        if str(error) != state.problem:
            _logger.warning("retention cannot remove segments", error=str(error), segments=len(state.unremoved))
        state.problem = str(error)
        return count
    state.problem = None
    _tell_overdue(log, overdue)
    return count


def _tell_overdue(log: Log, overdue: int) -> None:
    """Say once when it begins, and once when it ends, that the wall clock finds retention late."""
    overdue = overdue if overdue > OVERDUE_SECONDS * 1000 else 0
    before, log.retention.overdue_milliseconds = log.retention.overdue_milliseconds, overdue
    if overdue and not before:
        _logger.warning(
            "retention by age keeps records that are too old by the wall clock: either no node ran here for a while, "
            "or a wall clock is or was wrong; they go when a node has run for the retention age since they were stored",
            overdue_seconds=overdue // 1000,
            running_seconds=log.running_time.milliseconds() // 1000,
        )
    elif before and not overdue:
        _logger.info("retention by age is no longer late by the wall clock")


async def keep_running_time(log: Log) -> None:
    """Keep the running time, and notice when the wall clock jumps, until cancelled."""
    turns = log.errors.turns(Where.RUNNING_TIME)
    watch = WallClockWatch(log.running_time.milliseconds(), log.wall_clock())
    problem: str | None = None
    while True:
        async with turns:
            await trio.sleep(RUNNING_TIME_SECONDS)
            wall = log.wall_clock()
            jump = watch.look(log.running_time.milliseconds(), wall)
            if jump:
                log.counters.wall_clock_jumps += 1
                _logger.warning(
                    "the wall clock jumped",
                    by_seconds=jump / 1000,
                    log_time_ahead_seconds=log.log_time_ahead / 1000,
                )
            try:
                await trio.to_thread.run_sync(log.running_time.note, wall)
            except OSError as error:
                if str(error) != problem:
                    _logger.warning("how long the node has run cannot be kept", error=str(error))
                problem = str(error)
            else:
                problem = None
