"""Applying pulled frames: what is appended, dropped, reported.

A frame is appended if it is exactly the next of its origin and follows the log's last one by its previous-header CRC.
One that the log has is dropped. One that straddles the log's next, or follows another frame, means that two logs have
diverged: it is reported with both places and never applied.
"""

from __future__ import annotations

import enum
from typing import Protocol

from attrs import define, frozen

from proglog_trio.errors import FrameError
from proglog_trio.log.format.frame import Frame, decode_frame
from proglog_trio.log.format.gap_marker import GapMarker
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.events import Diverged, GapMarked, MissingMarked, PeerLied
from proglog_trio.replication.local_node import LocalNode

NO_PEER_HAS_THEM = "no node has them"
GIVEN_UP = "they were missing, and no node has them any more"
NOT_REACHED = "no node that is reachable has them"


class Outcome(enum.Enum):
    """What became of a frame."""

    APPLIED = "applied"
    DROPPED = "dropped"
    AHEAD = "ahead"
    DIVERGED = "diverged"


class Permission(Protocol):
    """Says what may be applied."""

    def __call__(self, origin: Origin) -> Allowed | None:
        """Return what a peer may send of an origin; None: it was never asked for it."""


@frozen
class Allowed:
    """What a peer may send of an origin.

    Attributes:
        is_only_answer: it answers the only want of the origin that there was; otherwise it may be out of turn.
        gap_to: the sequence at which the origin may go on although the log has not got so far.
        is_final: what lies before that is given up; otherwise it is missing at present.
    """

    is_only_answer: bool
    gap_to: int | None
    is_final: bool = False


@define(repr=False)
class Applier:
    """Applies the frames of one peer.

    Attributes:
        node: to whose log they go; is told of gaps and divergences.
        peer: the peer's name.
    """

    node: LocalNode
    peer: str

    def apply(self, data: bytes, place: int, allowed: Permission) -> tuple[Frame, Outcome]:
        """Apply the frame that begins at data[place].

        Raises:
            PeerLied: the frame is none, or not what was asked for.
            LogBusy, LogReadOnly, LogClosed: nothing was applied; see Log.append_foreign.
        """
        try:
            frame = decode_frame(data, place)
        except FrameError as error:
            raise PeerLied(f"{self.peer} sends bytes that are no frame: {error}") from None
        # The log keeps these very bytes; a message with one frame need not be copied for that.
        outcome = self._apply(frame, data if frame.length == len(data) else data[place : place + frame.length], allowed)
        counters = self.node.counters
        if outcome is Outcome.APPLIED:
            counters.frames_applied += 1
            counters.records_applied += frame.header.count
            counters.bytes_applied += frame.length
        elif outcome is Outcome.DROPPED:
            counters.frames_dropped += 1
            counters.bytes_dropped += frame.length
        elif outcome is Outcome.AHEAD:
            counters.frames_ahead += 1
        return frame, outcome

    def _apply(self, frame: Frame, data: bytes, allowed: Permission) -> Outcome:
        header = frame.header
        origin, base = header.origin, header.base_sequence
        permission = allowed(origin)
        if permission is None:
            raise PeerLied(f"{self.peer} sends sequence {base} of origin {origin}, which it was not asked for")
        # A gap marker is one log's word: another may have what it stands for.
        if header.is_control or header.count < 1:
            raise PeerLied(f"{self.peer} sends a frame of {origin} without records")
        # What is being written counts: frames come faster than they are durable.
        state = self.node.log.planned_origins.get(origin, OriginState())
        if header.next_sequence <= state.next:
            return Outcome.DROPPED
        if base < state.next:
            # Frames are immutable: where one ends in a log, it ends in every log.
            return self._diverged(frame, state, "the frame straddles the log's next sequence")
        if base > state.next:
            if permission.gap_to != base:
                # With another want under way it may answer that one, from further on than this log has come by now.
                if permission.is_only_answer:
                    raise PeerLied(
                        f"{self.peer} sends sequence {base} of origin {origin}, where {state.next} comes next"
                    )
                return Outcome.AHEAD
            # The marker carries the CRC that the chain goes on from, so what comes after it is checked as ever.
            self.mark(origin, state.next, base, header.previous_header_crc, is_final=permission.is_final)
        elif header.previous_header_crc != state.last_header_crc:
            return self._diverged(frame, state, f"it follows a header with CRC {header.previous_header_crc:#010x}")
        try:
            self.node.log.append_foreign(frame, data, _ignore)
        except FrameError as error:
            raise PeerLied(f"{self.peer} sends a frame that cannot follow: {error}") from None
        return Outcome.APPLIED

    def mark(
        self, origin: Origin, from_sequence: int, to_sequence: int, previous_header_crc: int, *, is_final: bool
    ) -> None:
        """Append a marker: no peer can send these sequences. Raises LogReadOnly, LogClosed.

        Args:
            origin: whose sequences.
            from_sequence: the first of them.
            to_sequence: the one after the last.
            previous_header_crc: of the frame that ends there.
            is_final: they are given up; otherwise they are missing at present, and keep their offsets.
        """
        reason = NO_PEER_HAS_THEM if is_final else NOT_REACHED
        self.node.log.append_gap(
            GapMarker(
                origin, from_sequence, to_sequence, previous_header_crc, reason, in_place=not is_final, final=is_final
            ),
            _ignore,
        )
        if is_final:
            self.node.emit(GapMarked(origin, from_sequence, to_sequence, reason))
        else:
            self.node.emit(MissingMarked(origin, from_sequence, to_sequence))

    def _diverged(self, frame: Frame, state: OriginState, what: str) -> Outcome:
        header = frame.header
        here = f"sequences {state.low} to {state.next - 1}, the last header's CRC {state.last_header_crc:#010x}"
        there = f"sequences {header.base_sequence} to {header.next_sequence - 1}: {what}"
        self.node.emit(Diverged(self.peer, header.origin, here, there))
        return Outcome.DIVERGED


def _ignore(_error: object) -> None:
    """What becomes durable shows in the log's positions; what does not, in its being read-only."""
