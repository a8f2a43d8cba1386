"""What a plan decides, what it knows of each origin for that, and the times that it goes by."""

from __future__ import annotations

from attrs import Factory, define, field, frozen, validators

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.messages import Want
from proglog_trio.replication.peers.peer_view import PeerView


@frozen(kw_only=True)
class PlanConfig:
    """Times, in seconds.

    Attributes:
        stall_seconds: without progress, although a peer shows more, until another source is asked.
        avoid_seconds: how long a source that stalled is left alone for an origin; doubled each time, up to the next.
        longest_avoid_seconds: see avoid_seconds.
        idle_seconds: without anything new until a source that does not write an origin is told to stop.
        settle_seconds: how long a peer may be without connection before anything is passed without it.
        gap_seconds: how long sequences must have been missing everywhere before they are passed.
        damage_seconds: the same for damaged ones, which may be repaired.
        retry_damage_seconds: until a source that could not read an origin is asked again.
    """

    stall_seconds: float = field(default=2.0, validator=validators.gt(0))
    avoid_seconds: float = field(default=10.0, validator=validators.gt(0))
    longest_avoid_seconds: float = field(default=60.0, validator=validators.gt(0))
    idle_seconds: float = field(default=10.0, validator=validators.gt(0))
    settle_seconds: float = field(default=10.0, validator=validators.ge(0))
    gap_seconds: float = field(default=5.0, validator=validators.ge(0))
    damage_seconds: float = field(default=60.0, validator=validators.ge(0))
    retry_damage_seconds: float = field(default=15.0, validator=validators.gt(0))


@frozen
class Assignment:
    """The peer that an origin is pulled from.

    Attributes:
        peer: the source's name.
        from_sequence: where it was told to begin.
        gap_to: if the sequences from the log's next up to this one are passed, else None.
        began: when, in seconds.
        is_final: what is passed is given up; otherwise it is missing at present.
    """

    peer: str
    from_sequence: int
    gap_to: int | None
    began: float
    is_final: bool = False


@define
class OriginPull:
    """How it goes with one origin.

    Attributes:
        next: the log's next when this was last looked at.
        advanced_at: when it last grew.
        behind_since: since when a peer has shown more; None: none does.
        unavailable_since: since when no peer has had what comes next, asking again what could not be read included;
            None: one has.
        asked: the directories that did not have what comes next when they were asked.
    """

    next: int
    advanced_at: float
    behind_since: float | None = None
    unavailable_since: float | None = None
    asked: set[bytes] = Factory(set)


@frozen
class Look:
    """What a decision about one origin goes by.

    Attributes:
        now: when it is made, in seconds.
        following: the sequence that comes next in the log.
        current: from which peer it is pulled.
        pull: how that goes.
        showing: the peers that say that they have more.
        able: those of them that have what comes next.
        writer: the peer that writes it, connected or not.
    """

    origin: Origin
    now: float
    following: int
    current: Assignment | None
    pull: OriginPull
    showing: list[PeerView]
    able: list[PeerView]
    writer: PeerView | None

    def can_follow(self, writer: PeerView) -> bool:
        """Tell whether the writer can be pulled, whether or not it has anything new."""
        origin = self.origin
        if not writer.connected or origin in writer.diverged_origins or writer.avoids(origin, self.now):
            return False
        held = writer.ranges.get(origin)
        return held is None or self.following >= held.next or writer.has(origin, self.following, self.now)

    def assign(
        self, peer: PeerView, from_sequence: int, gap_to: int | None = None, *, is_final: bool = False
    ) -> Assignment:
        """Return that a peer is the source: the current assignment itself if it says that."""
        current = self.current
        if current is not None and (current.peer, current.gap_to, current.is_final) == (peer.name, gap_to, is_final):
            return current
        return Assignment(peer.name, from_sequence, gap_to, self.now, is_final)


@frozen
class Start:
    """Tell a peer to send an origin."""

    peer: str
    want: Want


@frozen
class Stop:
    """Tell a peer to send an origin no more."""

    peer: str
    origin: Origin


@frozen
class Pass:
    """Mark the sequences up to one as not there: no peer has anything of the origin below it, nor beyond.

    Attributes:
        previous_header_crc: of the frame that ended there.
        is_final: they are given up; otherwise they are missing at present.
    """

    origin: Origin
    to_sequence: int
    previous_header_crc: int
    is_final: bool


Decision = Start | Stop | Pass
