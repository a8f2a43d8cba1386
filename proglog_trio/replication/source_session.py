"""The source's side of one pull stream: what it says, and what the puller wants. Reading is in source_reader.py."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.messages import (
    ENTRIES_AT_ONCE,
    MAX_ORIGINS,
    ClockAnswer,
    Ended,
    EndReason,
    PullRequest,
    PullResponse,
    Want,
)
from proglog_trio.replication.session import Session
from proglog_trio.replication.source_reader import WantChanges


@define(eq=False, repr=False)
class SourceSession(Session):
    """One stream from a puller.

    Attributes:
        wanted: the origins that it wants and that were not ended; MAX_ORIGINS at most.
    """

    wanted: set[Origin] = Factory(set)
    # What the reader was not told yet. An origin may be in both: it was stopped, and then wanted anew.
    _wants: dict[Origin, Want] = Factory(dict)
    _stops: dict[Origin, None] = Factory(dict)
    # What the puller was not told yet.
    _ended: list[Ended] = Factory(list)
    # The last one that was not answered; 0: none.
    _clock_question: int = 0

    # -- in ------------------------------------------------------------------------------------------------------------

    def received(self, request: PullRequest) -> None:
        """Do what a request says.

        Raises:
            PullRefused: the puller is of another cluster, or speaks another version.
            PeerLied: it does what a correct one cannot.
        """
        self._hear(request)
        self._clock_question = request.clock_question or self._clock_question
        # Stops first: one that wants an origin anew, from elsewhere, says both in one message.
        for origin in request.stops:
            self._wants.pop(origin, None)
            self._stops[origin] = None
            self.wanted.discard(origin)
        for want in request.wants:
            self._wants[want.origin] = want
            self.wanted.add(want.origin)
        if len(self.wanted) > MAX_ORIGINS:
            raise PeerLied(f"the puller wants more than {MAX_ORIGINS} origins")
        self.on_ready()

    # -- out -----------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When there is something to say, in seconds; None: there is nothing. Frames are not counted."""
        if self.hello is None:
            return None
        if not self._said_hello or self._ended or self._clock_question:
            return float("-inf")
        return self.advertiser.deadline(self.node.writing)

    def next_response(self) -> PullResponse | None:
        """Return what is to be said now, frames apart, or None."""
        if self.hello is None:
            return None  # A stranger is told nothing.
        hello, told = self._say()
        ended, self._ended = tuple(self._ended[:ENTRIES_AT_ONCE]), self._ended[ENTRIES_AT_ONCE:]
        answer = None
        if self._clock_question:
            answer = ClockAnswer(self._clock_question, self.node.log.wall_clock())
            self._clock_question = 0
        if not (hello or told or ended or answer):
            return None
        self._said_hello = True
        return PullResponse(hello, told.positions, told.others, b"", ended, told.directories, answer)

    @property
    def has_want_changes(self) -> bool:
        """Whether the reader must be told of other wants."""
        return bool(self._wants or self._stops)

    def pop_want_changes(self) -> WantChanges:
        """Return what the reader must be told, once."""
        changes = WantChanges(tuple(self._stops), tuple(self._wants.values()))
        self._wants, self._stops = {}, {}
        return changes

    def frames_read(self, frames: int, size: int, ended: Sequence[Ended]) -> None:
        """Count what the reader found, and tell the puller which origins cannot go on.

        Args:
            frames: how many frames.
            size: their bytes.
            ended: those origins.
        """
        counters = self.node.counters
        counters.frames_sent += frames
        counters.bytes_sent += size
        for each in ended:
            if each.origin in self._wants:
                continue  # it was wanted anew meanwhile, and the reader will say so again
            self._ended.append(each)
            self.wanted.discard(each.origin)
            if each.reason is EndReason.DAMAGED:
                counters.streams_ended_damaged += 1
