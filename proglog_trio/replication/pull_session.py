"""The puller's side of one pull stream: requests out, responses in, frames applied in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from attrs import Factory, define

from proglog_trio.errors import LogBusy, LogClosed, LogReadOnly
from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.advertiser import Advertiser
from proglog_trio.replication.applier import Allowed, Applier, Outcome
from proglog_trio.replication.events import PeerLied, PullRefused, SourceEnded
from proglog_trio.replication.messages import (
    ENTRIES_AT_ONCE,
    PROTOCOL_VERSION,
    ClockAnswer,
    EndReason,
    Hello,
    PullRequest,
    PullResponse,
    Want,
)
from proglog_trio.replication.peers.peer_clocks import QUESTION_SECONDS

if TYPE_CHECKING:
    from proglog_trio.replication.replica import Replica


@define(eq=False, repr=False)
class PullSession:
    """One stream to a peer.

    Attributes:
        peer: the peer's name in the membership.
        on_ready: called when there may be something to send.
        on_room: called when frames that waited for room in the log may be applied.
        on_greeted: called when the peer has said who it is, and may be pulled from.
    """

    replica: Replica
    peer: str
    advertiser: Advertiser
    applier: Applier
    on_ready: Callable[[], None] = lambda: None
    on_room: Callable[[], None] = lambda: None
    on_greeted: Callable[[], None] = lambda: None
    hello: Hello | None = None
    _said_hello: bool = False
    _wants: dict[Origin, Want] = Factory(dict)
    _stops: dict[Origin, None] = Factory(dict)
    _asked: dict[Origin, int] = Factory(dict)
    _backlog: deque[bytes] = Factory(deque)
    _place: int = 0
    _stop_waiting: Callable[[], None] | None = None
    _clock_question: int = 0
    _clock_asked_at: float = float("-inf")

    # -- out -----------------------------------------------------------------------------------------------------------

    def want(self, want: Want) -> None:
        """Ask for an origin with the next request."""
        self._wants[want.origin] = want
        self._asked[want.origin] = self._asked.get(want.origin, 0) + 1
        self.on_ready()

    def stop(self, origin: Origin) -> None:
        """Ask for an origin no more, with the next request."""
        if self._wants.pop(origin, None) is None:
            self._stops[origin] = None
        self.on_ready()

    @property
    def deadline(self) -> float | None:
        """When there is something to send, in seconds; None: there is nothing."""
        if not self._said_hello or self._wants or self._stops:
            return float("-inf")
        ask_clock_at = self._clock_asked_at + QUESTION_SECONDS
        told_at = self.advertiser.deadline(self.replica.writing)
        return ask_clock_at if told_at is None else min(told_at, ask_clock_at)

    def next_request(self) -> PullRequest | None:
        """Return what is to be sent now, or None."""
        hello = None if self._said_hello else self.replica.hello
        told = self.replica.tell(self.advertiser)
        # A stop of what is wanted anew comes before the want: the source heeds stops first.
        stops = tuple(islice(self._stops, ENTRIES_AT_ONCE))
        for origin in stops:
            del self._stops[origin]
        wants = () if self._stops else tuple(islice(self._wants.values(), ENTRIES_AT_ONCE))
        for want in wants:
            del self._wants[want.origin]
        question, now = 0, self.replica.clock()
        if now >= self._clock_asked_at + QUESTION_SECONDS:
            question = self._clock_question = self._clock_question + 1
            self._clock_asked_at = now
        if not (hello or told or wants or stops or question):
            return None
        self._said_hello = True
        return PullRequest(hello, told.positions, told.others, wants, stops, told.directories, question)

    def say_hello_again(self) -> None:
        """Say, with the next request, that this node's directory counts as opened again, and what it has."""
        self._said_hello = False
        self.advertiser.say_all_again()
        self.on_ready()

    # -- in ------------------------------------------------------------------------------------------------------------

    def received(self, response: PullResponse) -> bool:
        """Take a response; tell whether all of its frames were applied, else apply must be called until they are.

        Raises:
            PullRefused: the peer is of another cluster, or speaks another version.
            PeerLied: it sent what a correct one cannot.
            LogReadOnly, LogClosed: this log takes nothing more.
        """
        if self.hello is None:
            self._greet(response.hello)
        elif response.hello is not None:
            self.hello = self.replica.greeted_again(self.hello, response.hello)
        self.replica.directories.heard(response.directories)
        if response.positions is not None:
            self.replica.take_positions(self.peer, response.positions)
        self.replica.take_news(response.others)
        if response.clock_answer is not None:
            self._take_clock(response.clock_answer)
        if response.frames:
            self._backlog.append(response.frames)
        is_done = self.apply()
        for ended in response.ended:
            if ended.origin not in self._asked:
                raise PeerLied(f"{self.peer} ends origin {ended.origin}, which it was not asked for")
            if ended.reason is EndReason.DAMAGED:
                self.replica.emit(SourceEnded(self.peer, ended.origin, ended.from_sequence))
            self.replica.plan.ended(self.peer, ended, self.replica.now())
        self.replica.decide()
        return is_done

    def _take_clock(self, answer: ClockAnswer) -> None:
        # One that took so long that another question was asked tells too little.
        if answer.question == self._clock_question:
            self.replica.take_clock(self.peer, answer.wall_clock, self.replica.clock() - self._clock_asked_at)

    def _greet(self, hello: Hello | None) -> None:
        if hello is None:
            raise PeerLied(f"{self.peer} says nothing of itself")
        check_hello(self.replica.hello, hello)
        if hello.node_name != self.peer:
            raise PullRefused(f"the node at the address of {self.peer} calls itself {hello.node_name!r}")
        self.hello = hello
        self.advertiser.listener = hello.directory_id
        self.replica.greeted(self, hello)
        self.on_greeted()

    def apply(self) -> bool:
        """Apply the frames that wait; tell whether none is left: else on_room is called when it can go on.

        Raises: as received.
        """
        applied: set[Origin] = set()
        try:
            while self._backlog:
                data = self._backlog[0]
                while self._place < len(data):
                    try:
                        frame, outcome = self.applier.apply(data, self._place, self._allowed)
                    except LogBusy:
                        if self._stop_waiting is None:
                            self._stop_waiting = self.replica.log.notify_room(self._has_room)
                        return False
                    if outcome is Outcome.APPLIED:
                        applied.add(frame.header.origin)
                        self.replica.plan.advanced(frame.header.origin, self.replica.now())
                    elif outcome is Outcome.DIVERGED:
                        self.replica.plan.diverged(self.peer, frame.header.origin)
                    elif outcome is Outcome.AHEAD:
                        self.replica.plan.ask_again(self.peer, frame.header.origin)
                    self._place += frame.length
                self._backlog.popleft()
                self._place = 0
        except (LogReadOnly, LogClosed):
            self._backlog.clear()
            raise
        return True

    def _has_room(self) -> None:
        self._stop_waiting = None
        self.on_room()

    def close(self) -> None:
        """Wait for nothing any more: the stream is gone."""
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None

    def _allowed(self, origin: Origin) -> Allowed | None:
        asked = self._asked.get(origin)
        if asked is None:
            return None
        assignment = self.replica.plan.assigned.get(origin)
        if assignment is None or assignment.peer != self.peer:
            return Allowed(is_only_answer=False, gap_to=None)
        # With several wants of an origin on this stream, what answers an earlier one may still be under way.
        return Allowed(is_only_answer=asked == 1, gap_to=assignment.gap_to, is_final=assignment.is_final)


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
