"""The source's side of one pull stream: what it says, and what the puller wants. Reading is in source_reader.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from attrs import Factory, define

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.messages import (
    ENTRIES_AT_ONCE,
    ClockAnswer,
    Ended,
    EndReason,
    Hello,
    PullRequest,
    PullResponse,
    Want,
)
from proglog_trio.replication.pull_session import check_hello
from proglog_trio.replication.source_reader import WantChanges

if TYPE_CHECKING:
    from proglog_trio.replication.replica import Replica

MAX_WANTS = 65_536


@define(eq=False, repr=False)
class SourceSession:
    """One stream from a puller.

    Attributes:
        hello: who pulls, once known.
        on_ready: called when there may be something to send.
    """

    replica: Replica
    advertiser: Advertiser
    on_ready: Callable[[], None] = lambda: None
    hello: Hello | None = None
    wanted: set[Origin] = Factory(set)
    _said_hello: bool = False
    _wants: dict[Origin, Want] = Factory(dict)
    _stops: dict[Origin, None] = Factory(dict)
    _ended: list[Ended] = Factory(list)
    _clock_question: int = 0

    # -- in ------------------------------------------------------------------------------------------------------------

    def received(self, request: PullRequest) -> None:
        """Take a request.

        Raises:
            PullRefused: the puller is of another cluster, or speaks another version.
            PeerLied: it does what a correct one cannot.
        """
        if self.hello is None:
            if request.hello is None:
                raise PeerLied("the puller says nothing of itself")
            check_hello(self.replica.hello, request.hello)
            self.hello = request.hello
            self.advertiser.listener = request.hello.directory_id
            self.replica.pulled_by(self, request.hello)
        elif request.hello is not None:
            self.hello = self.replica.greeted_again(self.hello, request.hello)
        self.replica.directories.heard(request.directories)
        if request.positions is not None:
            self.replica.learn(self.hello, request.positions)
        self.replica.take_news(request.others)
        self._clock_question = request.clock_question or self._clock_question
        for origin in request.stops:
            self._wants.pop(origin, None)
            self._stops[origin] = None
            self.wanted.discard(origin)
        for want in request.wants:
            self._wants[want.origin] = want
            self.wanted.add(want.origin)
        if len(self.wanted) > MAX_WANTS:
            raise PeerLied(f"the puller wants more than {MAX_WANTS} origins")
        self.on_ready()

    # -- out -----------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When there is something to say, in seconds; None: there is nothing. Frames are not counted."""
        if self.hello is None:
            return None
        if not self._said_hello or self._ended or self._clock_question:
            return float("-inf")
        return self.advertiser.deadline(self.replica.writing)

    def next_response(self) -> PullResponse | None:
        """Return what is to be said now, frames apart, or None."""
        if self.hello is None:
            return None
        hello = None if self._said_hello else self.replica.hello
        told = self.replica.tell(self.advertiser)
        ended, self._ended = tuple(self._ended[:ENTRIES_AT_ONCE]), self._ended[ENTRIES_AT_ONCE:]
        answer = None
        if self._clock_question:
            answer = ClockAnswer(self._clock_question, self.replica.log.wall_clock())
            self._clock_question = 0
        if not (hello or told or ended or answer):
            return None
        self._said_hello = True
        return PullResponse(hello, told.positions, told.others, b"", ended, told.directories, answer)

    def say_hello_again(self) -> None:
        """Say, with the next response, that this node's directory counts as opened again, and what it has."""
        self._said_hello = False
        self.advertiser.say_all_again()
        self.on_ready()

    @property
    def has_want_changes(self) -> bool:
        """Whether the reader must be told of other wants."""
        return bool(self._wants or self._stops)

    def pop_want_changes(self) -> WantChanges:
        """Return what the reader must be told."""
        changes = WantChanges(tuple(self._stops), tuple(self._wants.values()))
        self._wants, self._stops = {}, {}
        return changes

    def frames_read(self, frames: int, size: int, ended: Sequence[Ended]) -> None:
        """Take note of what the reader found."""
        counters = self.replica.counters
        counters.frames_sent += frames
        counters.bytes_sent += size
        for each in ended:
            if each.origin in self._wants:
                continue  # it was wanted anew meanwhile, and the reader will say so again
            self._ended.append(each)
            self.wanted.discard(each.origin)
            if each.reason is EndReason.DAMAGED:
                counters.streams_ended_damaged += 1
