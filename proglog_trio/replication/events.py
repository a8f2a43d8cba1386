"""What replication tells of itself, to be logged and counted."""

from __future__ import annotations

from attrs import define, frozen

from proglog_trio.errors import ProglogError
from proglog_trio.log.format.origin import Origin


class PullRefused(ProglogError):
    """A pull stream that must not be: another cluster's, or of a version that is not known."""


class PeerLied(ProglogError):
    """A peer sent what a correct one cannot: an origin that it was not asked for, a wrong sequence or CRC."""


@frozen
class Diverged:
    """Two logs hold different frames under the same origin; nothing of the peer's is applied.

    Attributes:
        here, there: the places, in words.
    """

    peer: str
    origin: Origin
    here: str
    there: str


@frozen
class _Passed:
    """This log goes on after the sequences [from_sequence, to_sequence) of an origin, without having them."""

    origin: Origin
    from_sequence: int
    to_sequence: int

    @property
    def sequences(self) -> str:
        """Which they are, in words."""
        return f"{self.from_sequence} to {self.to_sequence - 1}"


@frozen
class GapMarked(_Passed):
    """It will never have them."""

    reason: str


@frozen
class MissingMarked(_Passed):
    """They are missing at present."""


@frozen
class MissingFilled:
    """So many records that were missing at present have been put in their places."""

    records: int


@frozen
class SourceEnded:
    """A source could not go on with an origin: what comes next is damaged there."""

    peer: str
    origin: Origin
    from_sequence: int


@frozen
class LogTimeReturned:
    """Log time was ahead of the wall clock, which peers confirm, and follows it again.

    Attributes:
        ahead: by how many milliseconds it was.
    """

    ahead: int


@frozen
class ClockReading:
    """What was found out of a peer's wall clock.

    Attributes:
        ahead: by how many milliseconds it is ahead of this node's; negative: it is behind.
        uncertainty: the true difference is not further than this from it, in milliseconds.
        at: when, in seconds of the monotonic clock.
    """

    ahead: int
    uncertainty: int
    at: float


@frozen
class PeerClockChanged:
    """A peer's clock was found to be off, or to agree with this node's again."""

    peer: str
    reading: ClockReading
    is_off: bool


ReplicationEvent = (
    Diverged | GapMarked | MissingMarked | MissingFilled | SourceEnded | PeerClockChanged | LogTimeReturned
)


@define
class ReplicationCounters:
    """What replication did since the node started.

    Attributes:
        frames_applied, records_applied, bytes_applied: pulled and appended.
        frames_dropped, bytes_dropped: pulled although this log had them; after a change of source a few may be.
        frames_ahead: pulled out of turn, from a source that was told to stop meanwhile.
        gaps_marked, records_missing: sequences that were given up.
        missing_marked: how often sequences were passed that no reachable node has.
        missing_filled: records that were missing at present and have been put in their places.
        divergences: origins in which a peer's log was found to differ.
        lies: streams that were ended because a peer sent what a correct one cannot.
        frames_sent, bytes_sent: to pullers.
        streams_ended_damaged: origins that a puller was told to get elsewhere, because they are damaged here.
        acknowledgements_reached, acknowledgements_missed: produces that asked for more nodes than this one.
        pauses: how often this process was stopped, or its loop held, while a decision was due.
    """

    frames_applied: int = 0
    records_applied: int = 0
    bytes_applied: int = 0
    frames_dropped: int = 0
    bytes_dropped: int = 0
    frames_ahead: int = 0
    gaps_marked: int = 0
    records_missing: int = 0
    missing_marked: int = 0
    missing_filled: int = 0
    divergences: int = 0
    lies: int = 0
    frames_sent: int = 0
    bytes_sent: int = 0
    streams_ended_damaged: int = 0
    acknowledgements_reached: int = 0
    acknowledgements_missed: int = 0
    pauses: int = 0

    def count(self, event: ReplicationEvent) -> None:
        """Count an event. The one place for that: a gap is one whether a pull passed it or a repair gave it up."""
        match event:
            case Diverged():
                self.divergences += 1
            case GapMarked(_, first, following):
                self.gaps_marked += 1
                self.records_missing += following - first
            case MissingMarked():
                self.missing_marked += 1
            case MissingFilled(records):
                self.missing_filled += records
            case _:
                pass
