"""Repairing this node's log with frames that peers have, while the node goes on."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
import trio
from attrs import define, field

from proglog_trio.errors import LogClosed, LogReadOnly, ProglogError
from proglog_trio.internal_errors import Where
from proglog_trio.log.format.damage import Damage
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.segment_files import SegmentFiles
from proglog_trio.log.log import Log
from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.log.repair.run import repair_segment
from proglog_trio.replication.missing_review import MissingReview
from proglog_trio.steps import Turn

FetchFrames = Callable[[str, Missing], Awaitable[list[bytes]]]
"""Asks the node at an address for frames; raises ProglogError where it cannot be asked."""

FIRST_RETRY_SECONDS = 15.0
LONGEST_RETRY_SECONDS = 600.0
MAX_NAMED = 20
"""So many refused frames, and so many places that stay damaged, are named after each attempt; more are counted."""
_logger = structlog.get_logger(__name__)


@define(eq=False, repr=False)
class Repairer:
    """Looks after a log's damage: as soon as some is known, and again while some is left.

    Attributes:
        log: this node's.
        review: knows what is missing at present, and what of it is to be given up.
        peers: gives the addresses of peers, those first that are likely to have what is missing.
    """

    log: Log
    review: MissingReview
    peers: Callable[[Missing], Iterable[str]]
    fetch: FetchFrames
    rng: random.Random
    # Set when it is worth while to try again; another one after each time.
    _news: trio.Event = field(factory=trio.Event)
    # Of those that wait until everything was tried: set when the attempt has ended that began after they asked.
    _waiting: list[trio.Event] = field(factory=list)

    def look_again(self) -> None:
        """Try soon what could not be repaired, or is missing: another peer may have it."""
        self._news.set()

    async def repair_now(self) -> None:
        """Try everything, and return when that has ended."""
        ended = trio.Event()
        self._waiting.append(ended)
        self.look_again()
        await ended.wait()

    async def run(self) -> None:
        """Repair until cancelled."""
        token = trio.lowlevel.current_trio_token()

        def note(_damage: Damage) -> None:
            token.run_sync_soon(self.look_again)

        stop = self.log.damage.watch(note)
        wait = FIRST_RETRY_SECONDS
        turns = self.log.errors.turns(Where.REPAIR)
        try:
            while True:
                async with turns:
                    waiting, self._waiting = self._waiting, []
                    try:
                        repaired = await self._repair_all()
                    finally:
                        for ended in waiting:
                            ended.set()
                    wait = FIRST_RETRY_SECONDS if repaired else min(wait * 2, LONGEST_RETRY_SECONDS)
                    with trio.move_on_after(wait * self.rng.uniform(0.5, 1.0) if len(self.log.damage) else math.inf):
                        await self._news.wait()
                    self._news = trio.Event()
        finally:
            stop()

    async def _repair_all(self) -> int:
        """Try every segment in which there is damage; return how many offsets can be read again."""
        repaired = 0
        segments = {*self.log.damage.segments(), *self.log.durable.missing_segments()}
        for files in sorted(segments, key=lambda files: files.base_offset):
            with self.log.errors.boundary(Where.REPAIR, segment=str(files.store)):
                try:
                    repaired += await self._repair(files)
                except (LogReadOnly, LogClosed) as error:
                    _logger.warning("the log cannot be repaired now", reason=str(error))
                    break
                except (ProglogError, OSError) as error:
                    _logger.error("a segment could not be repaired", segment=str(files.store), reason=str(error))
        return repaired

    async def _repair(self, files: SegmentFiles) -> int:
        outcome = await repair_segment(self.log, files, self._fetch, self.review.given_up)
        if outcome is None:
            return 0
        self.review.settled(outcome.filled_offsets, outcome.gaps)
        if outcome.repaired_offsets or outcome.rewritten:
            _logger.info("the log was repaired", segment=str(files.store), records=outcome.repaired_offsets)
        for refused in outcome.refused[:MAX_NAMED]:
            _logger.warning("a frame for the repair was refused", segment=str(files.store), reason=refused)
        if (more := len(outcome.refused) - MAX_NAMED) > 0:
            _logger.warning("more frames for the repair were refused", segment=str(files.store), frames=more)
        for left, place, reason in outcome.remaining[:MAX_NAMED]:
            _logger.warning("damage is left", segment=str(left.store), damage=str(place), reason=reason)
        if (more := len(outcome.remaining) - MAX_NAMED) > 0:
            _logger.warning("more damage is left", segment=str(files.store), places=more)
        return outcome.repaired_offsets + outcome.filled_offsets

    async def _fetch(self, missing: Missing) -> list[bytes]:
        """Return what peers have, asking one after the other until nothing is missing."""
        found: dict[int, list[bytes]] = {}
        # Of those that begin at a sequence, up to where the longest goes.
        ends: dict[int, int] = {}
        turn = Turn()
        for address in self.peers(missing):
            frames: list[bytes] = []
            with self.log.errors.boundary(Where.REPAIR, rpc_addr=address):
                try:
                    frames = await self.fetch(address, missing)
                except ProglogError as error:
                    _logger.info("a peer could not be asked for what is damaged", rpc_addr=address, reason=str(error))
            turn.begin()
            for data in frames:
                if turn.is_over:
                    # Those of a whole segment may be fifty thousand.
                    await trio.lowlevel.checkpoint()
                    turn.begin()
                try:
                    header = FrameHeader.decode(data)
                except ProglogError as error:
                    _logger.warning("a peer sent what is no frame", rpc_addr=address, reason=str(error))
                    break
                if header.origin != missing.origin:
                    # They would pass for what is missing, and keep the peers that have it from being asked.
                    _logger.warning("a peer sent what it was not asked for", rpc_addr=address)
                    break
                base = header.base_sequence
                if data not in found.setdefault(base, []):
                    found[base].append(data)
                    ends[base] = max(ends.get(base, 0), header.next_sequence)
            if _covers(ends, missing):
                break
        return [data for base in sorted(found) for data in found[base]]


def _covers(ends: Mapping[int, int], missing: Missing) -> bool:
    """Tell whether frames that begin and end there hold all that is missing. What they hold is checked elsewhere."""
    sequence = missing.from_sequence
    for base in sorted(ends):
        if base > sequence:
            return False
        sequence = max(sequence, ends[base])
    return sequence >= missing.to_sequence
