"""Repair under Trio: threads for what blocks, and a new segment where the damage is in the active one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import trio
from attrs import evolve

from proglog_trio.errors import LogClosed, LogReadOnly
from proglog_trio.log.durable import DurableLog
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.format.segment_header import MissingRange
from proglog_trio.log.repair.fetched_frames import FetchedFrames
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.log.repair.plan import RepairOutcome, plan_repair
from proglog_trio.log.room import Room
from proglog_trio.log.state import Bounds
from proglog_trio.log.storage.catalog import SegmentCatalog

Fetch = Callable[[Missing], Awaitable[Iterable[bytes]]]
"""Gets frames that are missing from peers, each as the bytes of one portable frame; or some; or none."""


class RepairableLog(Protocol):
    """What a repair needs of the log that it repairs. All of it belongs to the host thread but for bounds."""

    catalog: SegmentCatalog
    room: Room
    durable: DurableLog

    @property
    def closing(self) -> bool:
        """Whether it takes nothing any more, since it is being closed."""

    @property
    def read_only_reason(self) -> str | None:
        """Why it takes no records at present; None: it takes some."""

    @property
    def is_rolling(self) -> bool:
        """Whether another segment is going to follow the active one."""

    def roll(self) -> bool:
        """Go on in a new segment; False: it cannot."""

    def notify_durable(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after each change of what is durable; return what ends it."""

    def bounds(self) -> Bounds:
        """Return what is durable at this moment; from any thread."""


async def repair_segment(
    log: RepairableLog,
    files: SegmentFiles,
    fetch: Fetch,
    given_up: Callable[[], Mapping[Origin, Sequence[MissingRange]]] = dict,
) -> RepairOutcome | None:
    """Repair a segment with what fetch brings, while the log goes on.

    None if retention removed it meanwhile, or if the log cannot leave it yet, since no offset was used in it. Of the
    gaps those that the log did not know as such.

    Args:
        log: the log.
        files: one of log.damage.segments(), or of log.durable.missing_segments().
        fetch: called once for each range of sequences that is missing.
        given_up: returns, after fetching, what of that which is missing at present becomes a gap.

    Raises:
        LogReadOnly: there is no room on the disk for the repaired file beside the old one, or the damage is in the
            active segment and no other can be begun.
        LogClosed: as before.
        RepairError: see SegmentRebuild.run.
        OSError: as the disk gives it.
    """
    if log.read_only_reason is not None and log.room.is_passing:
        raise LogReadOnly(log.read_only_reason)
    if not await leave_segment(log, files):
        return None
    plan = await trio.to_thread.run_sync(plan_repair, log.catalog, log.bounds(), files)
    if plan is None:
        return None
    fetched = FetchedFrames()
    for missing in plan.missing:
        await trio.to_thread.run_sync(fetched.add_all, list(await fetch(missing)))
    outcome = await trio.to_thread.run_sync(plan.rebuild, fetched, given_up())
    return evolve(outcome, gaps=log.durable.settle_missing(*outcome.offsets, outcome.missing, outcome.gaps))


async def leave_segment(log: RepairableLog, files: SegmentFiles) -> bool:
    """Let the log go on in a new segment if this is its active one, and return when it does; False: it cannot yet.

    Raises:
        LogReadOnly, LogClosed: it never will.
    """
    if log.catalog.noted_offset > files.base_offset:
        return True
    is_rolling = log.is_rolling or log.roll()
    changed = trio.Event()

    def note() -> None:
        changed.set()

    stop = log.notify_durable(note)
    try:
        while log.catalog.noted_offset <= files.base_offset:
            if log.closing:
                raise LogClosed("the log is closing")
            if log.read_only_reason is not None:
                raise LogReadOnly(log.read_only_reason)
            if not is_rolling:
                return False
            await changed.wait()
            changed = trio.Event()
            # What was under way may have been what led to this very segment.
            is_rolling = log.is_rolling or log.roll()
    finally:
        stop()
    return True
