"""What puller and source say to each other on a pull stream.

The classes are those of proto/log/v1/replication.proto in a form that the logic works with; rpc/messages/replication.py
turns one into the other.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from attrs import field, frozen

from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES, Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.events import PullRefused

PROTOCOL_VERSION = 1
ENTRIES_AT_ONCE = 64
"""Origins, places, wants and so on that one message says at most, of each kind: it has tens of kilobytes then, whatever
there is to say, and making and reading it takes a few milliseconds."""
GAPS_AT_ONCE = 512
"""Gaps in one message, unless one origin has more."""
MAX_ORIGINS = 65_536
"""Of one node: a peer that says that it has more is not pulled from, one that wants more is not served, and what is
told of a third node's further ones is not kept, so that they count as not held: the safe side."""
LONGEST_NAME = 512
HIGHEST_CHANGE = 2**63 - 1


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


def check_hello(mine: Hello, theirs: Hello) -> None:
    """Raise PullRefused if two nodes must not pull from each other."""
    if theirs.version != PROTOCOL_VERSION:
        raise PullRefused(
            f"{theirs.node_name!r} speaks version {theirs.version} of the pull protocol, this node {PROTOCOL_VERSION}"
        )
    if theirs.directory_id == mine.directory_id:
        raise PullRefused(f"{theirs.node_name!r} uses a copy of the data directory of {mine.node_name!r}")
    if theirs.cluster_name != mine.cluster_name:
        raise PullRefused(
            f"{theirs.node_name!r} is of the cluster {theirs.cluster_name!r}, this node of {mine.cluster_name!r}: "
            "merged logs could not be separated again"
        )


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
    def not_held(self) -> tuple[tuple[int, int], ...]:
        """The ranges (from, to) below next that it does not have: retired, gaps and missing, in their order."""
        retired = ((0, self.low),) if self.low else ()
        return (*retired, *sorted((*self.gaps, *self.missing)))

    def knows_not_to_hold(self, sequence: int) -> bool:
        """Tell whether a sequence lies in a range that it says that it does not have."""
        return any(begin <= sequence < end for begin, end in self.not_held)

    def is_gap(self, first: int, following: int) -> bool:
        """Tell whether it will never have any of the sequences [first, following)."""
        for begin, end in sorted(((0, self.low), *self.gaps)):
            if begin <= first < end:
                first = end
        return first >= following

    def available_from(self, sequence: int) -> int | None:
        """Return the first sequence at or after this one that the log has; None if it has none."""
        for begin, end in self.not_held:
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
        not_held: per origin the ranges (from, to) below that which it does not have, where there are any.
    """

    directory_id: bytes
    opened: int
    nexts: Mapping[Origin, int]
    not_held: Mapping[Origin, tuple[tuple[int, int], ...]] = field(factory=dict)


@frozen
class KnownDirectory:
    """A data directory.

    Attributes:
        directory_id: its 8 bytes.
        node_name: of the node that was last known to use it.
        change: how often what is said of it has changed, for ordering.
        is_gone: it is not waited for any more.
    """

    directory_id: bytes
    node_name: str
    change: int = 0
    is_gone: bool = False

    @property
    def order(self) -> tuple[int, bool]:
        """What is greater replaces what is less."""
        return self.change, not self.is_gone


def directory_of(directory_id: object, node_name: object, change: object, is_gone: object) -> KnownDirectory:
    """Return an entry that came from outside; raises ValueError if it is none."""
    if not isinstance(directory_id, bytes) or len(directory_id) != DIRECTORY_ID_BYTES:
        raise ValueError(f"a directory id has {DIRECTORY_ID_BYTES} bytes")
    if not isinstance(node_name, str) or len(node_name) > LONGEST_NAME:
        raise ValueError(f"a node's name has {LONGEST_NAME} characters at most")
    if not isinstance(change, int) or isinstance(change, bool) or not 0 <= change <= HIGHEST_CHANGE:
        raise ValueError("the number of a directory's changes is none")
    return KnownDirectory(directory_id, node_name, change, bool(is_gone))


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
