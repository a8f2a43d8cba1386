"""What one peer has, as it says, and how far it can be relied on, origin by origin."""

from __future__ import annotations

from attrs import Factory, define, frozen

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.messages import Ended, EndReason, OriginRange, Positions


@frozen
class _Unavailable:
    """Sequences that a peer could not send, although its range says that it has them.

    Attributes:
        end: the first after them that it can, or that it did not have yet: what a source does not have it knows up to
            its next only.
        retry_at: when it may be asked again; None: not before it says what it has.
    """

    start: int
    end: int
    reason: EndReason
    retry_at: float | None

    def covers(self, sequence: int, now: float) -> bool:
        if self.retry_at is not None and now >= self.retry_at:
            return False
        return self.start <= sequence < self.end


@define
class _Avoidance:
    until: float
    seconds: float


@define
class PeerView:
    """A peer.

    Attributes:
        name: of the node.
        disconnected_since: when the stream to it ended, or the peer became known; in seconds.
        connected: whether a stream to it is open on which it has said who it is.
        has_told: whether it has said all that it has, on this stream. Before that nothing follows from what it has not
            said.
        directory_id: of its data directory, once it has said.
        ranges: what it has; kept while it is not connected, but no evidence then of what it does not have.
        writing: the origin under which it appends.
        diverged_origins: those in which its log and this node's were found to differ, on this stream.
        avoided: origins in which it stalled.
    """

    name: str
    disconnected_since: float
    connected: bool = False
    has_told: bool = False
    directory_id: bytes | None = None
    ranges: dict[Origin, OriginRange] = Factory(dict)
    writing: Origin | None = None
    diverged_origins: set[Origin] = Factory(set)
    avoided: dict[Origin, _Avoidance] = Factory(dict)
    # The last such place of each origin.
    _unavailable: dict[Origin, _Unavailable] = Factory(dict)

    def connect(self, directory_id: bytes) -> None:
        """Begin anew: what it has is said on the stream that is now open."""
        self.connected, self.has_told, self.directory_id, self.writing = True, False, directory_id, None
        self.ranges.clear()
        self.avoided.clear()
        self.diverged_origins.clear()
        self._unavailable.clear()

    def disconnect(self, now: float) -> None:
        """End the stream; one that never came to a greeting does not make the peer's absence any shorter."""
        if self.connected:
            self.connected, self.disconnected_since = False, now

    def heard(self, positions: Positions) -> None:
        """Go by what it says that it has."""
        self.has_told = self.has_told or not positions.more_follows
        for origin in positions.forgotten:
            self.ranges.pop(origin, None)
        self.ranges.update(positions.ranges)
        for origin in positions.ranges:
            # This is newer than what it could not send: what is not there its range says.
            unavailable = self._unavailable.get(origin)
            if unavailable is not None and unavailable.reason is EndReason.MISSING:
                del self._unavailable[origin]
        if positions.writing is not None:
            self.writing = positions.writing

    def has(self, origin: Origin, sequence: int, now: float) -> bool:
        """Tell whether it can send an origin from a sequence on."""
        return self.available_from(origin, sequence, now) == sequence

    def available_from(self, origin: Origin, sequence: int, now: float) -> int | None:
        """Return the first sequence at or after this one that it can send; None if there is none."""
        held = self.ranges.get(origin)
        if held is None:
            return None
        unavailable = self._unavailable.get(origin)
        available = held.available_from(sequence)
        if available is None or unavailable is None or not unavailable.covers(available, now):
            return available
        return held.available_from(unavailable.end)

    def is_damaged_at(self, origin: Origin, sequence: int, now: float) -> bool:
        """Tell whether it could not read what it had at a sequence."""
        place = self._unavailable.get(origin)
        return place is not None and place.reason is EndReason.DAMAGED and place.covers(sequence, now)

    def cannot_send(self, ended: Ended, retry_at: float | None) -> None:
        """Ask it no more for sequences that it could not send; the last such place of an origin counts."""
        held = self.ranges.get(ended.origin)
        end = ended.resumes_at or max(ended.from_sequence + 1, 0 if held is None else held.next)
        self._unavailable[ended.origin] = _Unavailable(ended.from_sequence, end, ended.reason, retry_at)

    def offers(self, origin: Origin, first: int, following: int) -> bool:
        """Tell whether it is connected and its latest position has any of [first, following), readable or not."""
        held = self.ranges.get(origin)
        if not self.connected or held is None or origin in self.diverged_origins:
            return False
        return held.holds_any(first, following)

    def diverge(self, origin: Origin) -> bool:
        """Pull an origin from it no more: its log and this node's differ there; tell whether that is news."""
        news = origin not in self.diverged_origins
        self.diverged_origins.add(origin)
        return news

    def avoids(self, origin: Origin, now: float) -> bool:
        """Tell whether it is left alone for an origin, since it stalled."""
        avoidance = self.avoided.get(origin)
        return avoidance is not None and now < avoidance.until

    def avoid(self, origin: Origin, now: float, seconds: float, longest: float) -> float:
        """Leave it alone for an origin, longer each time; return until when."""
        before = self.avoided.get(origin)
        length = seconds if before is None else min(before.seconds * 2, longest)
        self.avoided[origin] = _Avoidance(now + length, length)
        return now + length

    def forgive(self, origin: Origin) -> None:
        """Leave it alone no more: it has sent something of an origin again."""
        self.avoided.pop(origin, None)
