"""What this log misses at present, looked at again and again: what is to be fetched, and what is given up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import MissingRange
from proglog_trio.replication.applier import GIVEN_UP
from proglog_trio.replication.events import GapMarked, MissingFilled
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.peers.peer_table import PeerTable

SequenceRange = tuple[Origin, int, int]
"""An origin, a sequence, and the one after the last."""


@define(eq=False, repr=False)
class MissingReview:
    """Decides what becomes of what is missing. A repair carries it out, and says what it did; see Repairer."""

    node: LocalNode
    peers: PeerTable
    # Origins of which something has changed since they were looked at.
    _unreviewed: set[Origin] = Factory(set)
    # Which directories did not have a range when they were asked. That holds for just this range, and only until a peer
    # says otherwise: what is missing now may have been filled there while it was away.
    _asked: dict[SequenceRange, set[bytes]] = Factory(dict)
    # What the next repair gives up where it cannot fetch it. A range leaves it by being settled only; this is
    # not kept on disk, so a node that is restarted before that decides anew.
    _given_up: set[SequenceRange] = Factory(set)

    def touch(self, origins: Iterable[Origin]) -> None:
        """Look at some origins at the next review."""
        self._unreviewed.update(origins)

    def touch_all(self) -> None:
        """Look at all that is missing at the next review."""
        self.touch(self.node.log.origins)

    def review(self) -> bool:
        """Look at what is missing of origins of which something has changed; tell whether there is work for a repair.

        What a connected peer has is to be fetched; what no node will have any more is given up.
        """
        origins, self._unreviewed = self._unreviewed, set()
        work = False
        for key, _ in self._missing(origins):
            asked = self._asked.setdefault(key, set())
            self.peers.ask(*key, asked)
            if self.peers.is_gap(*key, asked):
                self._given_up.add(key)
            # What is given up and offered all the same, as it is damaged there, is a gap where it cannot be fetched.
            work = work or key in self._given_up or bool(self.peers.offered(*key))
        return work

    def give_up(self, origin: Origin | None) -> set[SequenceRange]:
        """Give up what is missing of an origin (None: of all), since an operator says so; return what that is.

        They are gaps once the next repair has written that.
        """
        given_up = {key for key, _ in self._missing(self.node.log.origins if origin is None else [origin])}
        self._given_up |= given_up
        return given_up

    def records_missing(self, ranges: Iterable[SequenceRange]) -> int:
        """Return how many records of some ranges are missing at present."""
        return sum(
            max(min(each.to_sequence, following) - max(each.from_sequence, first), 0)
            for origin, first, following in ranges
            for _, each in self._missing([origin])
        )

    def given_up(self) -> dict[Origin, list[MissingRange]]:
        """Return what a repair is to give up, where it cannot be fetched."""
        found: dict[Origin, list[MissingRange]] = {}
        for key, each in self._missing(self.node.log.origins):
            if key in self._given_up:
                found.setdefault(key[0], []).append(each)
        return found

    def settled(self, filled: int, gaps: Mapping[Origin, Sequence[tuple[int, int]]]) -> None:
        """Tell what a repair did with what was missing, and forget what was known of ranges that are missing no more.

        Args:
            filled: how many records it put in their places.
            gaps: per origin the ranges (from, to) that it gave up.
        """
        if filled:
            self.node.emit(MissingFilled(filled))
        for origin, ranges in gaps.items():
            for first, following in ranges:
                self.node.emit(GapMarked(origin, first, following, GIVEN_UP))
        current = {key for key, _ in self._missing(self.node.log.origins)}
        self._given_up &= current
        self._asked = {key: asked for key, asked in self._asked.items() if key in current}

    def _missing(self, origins: Iterable[Origin]) -> Iterator[tuple[SequenceRange, MissingRange]]:
        """Yield what is missing of some origins, of which the log may know nothing any more."""
        states = self.node.log.origins
        for origin in origins:
            state = states.get(origin)
            for each in () if state is None else state.missing:
                yield (origin, each.from_sequence, each.to_sequence), each
