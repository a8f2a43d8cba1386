"""What puller and source say to each other on a pull stream.

The classes are those of proto/log/v1/replication.proto in a form that the logic works with; rpc/messages/replication.py
turns one into the other.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.peers.directories import KnownDirectory

PROTOCOL_VERSION = 1
ENTRIES_AT_ONCE = 64
"""Origins, places, wants and so on that one message says at most, of each kind: it has tens of kilobytes then, whatever
there is to say, and making and reading it takes a few milliseconds."""
GAPS_AT_ONCE = 512
"""Gaps in one message, unless one origin has more."""


@frozen
class Hello:
    """Who speaks.

    Attributes:
        cluster_name, node_name: of the node.
        directory_id: the 8 bytes that name its data directory.
        opened: which opening of the directory this is; a later one has a greater number.
        version: of the protocol.
    """

    cluster_name: str
    node_name: str
    directory_id: bytes
    opened: int
    version: int = PROTOCOL_VERSION


@frozen
class OriginRange:
    """What a log durably has of one origin: the sequences [low, next) outside gaps.

    Attributes:
        last_header_crc: the CRC in its last frame's header, 0 without one: two logs with the same next and another CRC
            have diverged.
        gaps: the ranges (from, to) within [low, next) that it will never have.
        missing: those that it does not have at present.
    """

    low: int
    next: int
    last_header_crc: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    missing: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of_state(cls, state: OriginState) -> OriginRange:
        """Return what a log's state of an origin says."""
        missing = tuple((each.from_sequence, each.to_sequence) for each in state.missing)
        return cls(state.low, state.next, state.last_header_crc, state.gaps, missing)

    @property
    def absent(self) -> tuple[tuple[int, int], ...]:
        """The ranges (from, to) below next that it does not have, for whatever reason, in their order."""
        below = ((0, self.low),) if self.low else ()
        return (*below, *sorted((*self.gaps, *self.missing)))

    def absent_at(self, sequence: int) -> tuple[int, int] | None:
        """Return the range that it does not have in which a sequence lies."""
        for absent in self.absent:
            if absent[0] <= sequence < absent[1]:
                return absent
        return None

    def is_gap(self, first: int, following: int) -> bool:
        """Tell whether it will never have any of the sequences [first, following)."""
        for begin, end in sorted(((0, self.low), *self.gaps)):
            if begin <= first < end:
                first = end
        return first >= following

    def available_from(self, sequence: int) -> int | None:
        """Return the first sequence at or after this one that the log has; None if it has none."""
        for begin, end in self.absent:
            if begin <= sequence < end:
                sequence = end
        return sequence if sequence < self.next else None

    def holds_any(self, first: int, following: int) -> bool:
        """Tell whether the log has any of the sequences [first, following)."""
        available = self.available_from(first)
        return available is not None and available < following


@frozen
class Positions:
    """What the sender's own log has: at first everything, in as many messages as it takes, then what has changed.

    Attributes:
        ranges: what it has.
        forgotten: origins that it no longer knows.
        writing: the origin under which it appends; None before its first append.
        more_follows: what it has is not all said yet: nothing may be concluded from what is not here.
    """

    ranges: Mapping[Origin, OriginRange] = field(factory=dict)
    forgotten: tuple[Origin, ...] = ()
    writing: Origin | None = None
    more_follows: bool = False


@frozen
class HolderNews:
    """What the sender knows of a third node's disk.

    Attributes:
        directory_id: names the disk.
        opened: see Hello.
        nexts: per origin up to where it has passed it.
        absent: per origin the ranges (from, to) below that which it does not have, where there are any.
    """

    directory_id: bytes
    opened: int
    nexts: Mapping[Origin, int]
    absent: Mapping[Origin, tuple[tuple[int, int], ...]] = field(factory=dict)


@frozen
class Want:
    """Send an origin from the frame on that begins with this sequence."""

    origin: Origin
    from_sequence: int


class EndReason(enum.Enum):
    """Why a source sends no more of an origin that is wanted."""

    MISSING = "missing"
    """It does not have what comes next, and knows it: retention, or a gap of its own."""
    DAMAGED = "damaged"
    """It had it, and cannot read it any more."""


@frozen
class Ended:
    """A source sends no more of an origin.

    Attributes:
        from_sequence: the first that it cannot send.
        resumes_at: the first after it that it can, or that comes next at that moment. None: it does not say.
    """

    origin: Origin
    from_sequence: int
    resumes_at: int | None
    reason: EndReason


@frozen
class Told:
    """What either side says of what there is.

    Attributes:
        positions: of its own log.
        others: of third nodes' disks; or, without places, a greater number of an opening of the other side's own.
        directories: that it knows: all of them in a stream's first message, what has changed in later ones.
    """

    positions: Positions | None = None
    others: tuple[HolderNews, ...] = ()
    directories: tuple[KnownDirectory, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.positions or self.others or self.directories)


@frozen
class ClockAnswer:
    """What a source's wall clock says, in milliseconds since the Unix epoch, and to which question."""

    question: int
    wall_clock: int


@frozen
class PullRequest:
    """From the puller to the source.

    Attributes:
        clock_question: asks what the source's wall clock says; a number that the answer repeats, 0: it is not asked.
    """

    hello: Hello | None = None
    positions: Positions | None = None
    others: tuple[HolderNews, ...] = ()
    wants: tuple[Want, ...] = ()
    stops: tuple[Origin, ...] = ()
    directories: tuple[KnownDirectory, ...] = ()
    clock_question: int = 0


@frozen
class PullResponse:
    """From the source to the puller.

    Attributes:
        frames: portable frames, one after the other.
    """

    hello: Hello | None = None
    positions: Positions | None = None
    others: tuple[HolderNews, ...] = ()
    frames: bytes = b""
    ended: tuple[Ended, ...] = ()
    directories: tuple[KnownDirectory, ...] = ()
    clock_answer: ClockAnswer | None = None
