"""The puller's side of one pull stream: requests out, responses in, frames applied in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from itertools import islice

from attrs import Factory, define

from proglog_trio.errors import LogBusy, LogClosed, LogReadOnly
from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.applier import Allowed, Applier, Outcome
from proglog_trio.replication.events import PeerLied, PullRefused, SourceEnded
from proglog_trio.replication.messages import (
    ENTRIES_AT_ONCE,
    MAX_ORIGINS,
    ClockAnswer,
    EndReason,
    Hello,
    Positions,
    PullRequest,
    PullResponse,
    Want,
)
from proglog_trio.replication.peers.peer_clocks import QUESTION_SECONDS, ClockWatch
from proglog_trio.replication.scheduler import Scheduler
from proglog_trio.replication.session import Session


@define(eq=False, repr=False)
class PullSession(Session):
    """One stream to a peer.

    Attributes:
        scheduler: makes the decisions that this session carries out, and hears how it goes.
        applier: appends the peer's frames.
        clocks: compares the peer's wall clock with this node's.
        on_positions: called with what the peer says that it has, once that is known as its holdings.
        on_room: called when frames that waited for room in the log may be applied.
        on_greeted: called when the peer has said who it is, and may be pulled from.
    """

    scheduler: Scheduler
    applier: Applier
    clocks: ClockWatch
    on_positions: Callable[[str, Positions], None]
    on_room: Callable[[], None]
    on_greeted: Callable[[], None]
    # Decisions that are not sent yet. An origin may be in both: then the stop is sent first.
    _wants: dict[Origin, Want] = Factory(dict)
    _stops: dict[Origin, None] = Factory(dict)
    # How often each origin was asked for on this stream. Nothing leaves it: what answers a want that was stopped may
    # still be under way, and is no lie.
    _asked: dict[Origin, int] = Factory(dict)
    # Messages with frames, of which the first is applied up to a place.
    _backlog: deque[bytes] = Factory(deque)
    _place: int = 0
    # Set while frames wait for room in the log.
    _stop_waiting: Callable[[], None] | None = None
    _clock_question: int = 0
    _clock_asked_at: float = float("-inf")

    def log_changed(self, origins: Collection[Origin]) -> None:
        """Tell that this node's log durably has more of these origins; at once what their writer waits for."""
        writing = self.holdings.peers.views[self.peer].writing
        self.advertiser.note(origins, urgent=writing is not None and writing in origins)

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
        told_at = self.advertiser.deadline(self.node.writing)
        return ask_clock_at if told_at is None else min(told_at, ask_clock_at)

    def next_request(self) -> PullRequest | None:
        """Return what is to be sent now, or None."""
        hello, told = self._say()
        # A stop of what is wanted anew comes before the want: the source heeds stops first.
        stops = tuple(islice(self._stops, ENTRIES_AT_ONCE))
        for origin in stops:
            del self._stops[origin]
        wants = () if self._stops else tuple(islice(self._wants.values(), ENTRIES_AT_ONCE))
        for want in wants:
            del self._wants[want.origin]
        question, now = 0, self.node.clock()
        if now >= self._clock_asked_at + QUESTION_SECONDS:
            question = self._clock_question = self._clock_question + 1
            self._clock_asked_at = now
        if not (hello or told or wants or stops or question):
            return None
        self._said_hello = True
        return PullRequest(hello, told.positions, told.others, wants, stops, told.directories, question)

    # -- in ------------------------------------------------------------------------------------------------------------

    def received(self, response: PullResponse) -> bool:
        """Do what a response says; tell whether all its frames were applied, else apply must be called until they are.

        Raises:
            PullRefused: the peer is of another cluster, or speaks another version.
            PeerLied: it sent what a correct one cannot.
            LogReadOnly, LogClosed: this log takes nothing more.
        """
        self._hear(response)
        if response.clock_answer is not None:
            self._clock_answered(response.clock_answer)
        if response.frames:
            self._backlog.append(response.frames)
        is_done = self.apply()
        # After the frames that came with it: they stand before its end.
        for ended in response.ended:
            if ended.origin not in self._asked:
                raise PeerLied(f"{self.peer} ends origin {ended.origin}, which it was not asked for")
            if ended.reason is EndReason.DAMAGED:
                self.node.emit(SourceEnded(self.peer, ended.origin, ended.from_sequence))
            self.scheduler.plan.ended(self.peer, ended, self.scheduler.now())
        self.scheduler.decide()
        return is_done

    def _check(self, hello: Hello) -> None:
        super()._check(hello)
        if hello.node_name != self.peer:
            raise PullRefused(f"the node at the address of {self.peer} calls itself {hello.node_name!r}")

    def _meet(self, hello: Hello) -> None:
        self.holdings.alive(self.peer, hello.directory_id)
        self.scheduler.plan.connected(self.peer, hello.directory_id)
        super()._meet(hello)
        self.on_greeted()

    def _heard_positions(self, hello: Hello, positions: Positions) -> None:
        known = self.holdings.peers.views[self.peer].ranges
        if len(known) + sum(origin not in known for origin in positions.ranges) > MAX_ORIGINS:
            raise PeerLied(f"{self.peer} says that it has more than {MAX_ORIGINS} origins")
        super()._heard_positions(hello, positions)
        self.on_positions(self.peer, positions)

    def _clock_answered(self, answer: ClockAnswer) -> None:
        # One that took so long that another question was asked tells too little.
        if answer.question == self._clock_question:
            took = self.node.clock() - self._clock_asked_at
            self.clocks.answered(self.peer, answer.wall_clock, took)

    def apply(self) -> bool:
        """Apply the frames that wait; tell whether none is left: else on_room is called when it can go on.

        Raises: as received.
        """
        try:
            while self._backlog:
                data = self._backlog[0]
                while self._place < len(data):
                    try:
                        frame, outcome = self.applier.apply(data, self._place, self._allowed)
                    except LogBusy:
                        if self._stop_waiting is None:
                            self._stop_waiting = self.node.log.notify_room(self._has_room)
                        return False
                    if outcome is Outcome.APPLIED:
                        self.scheduler.plan.advanced(frame.header.origin, self.scheduler.now())
                    elif outcome is Outcome.DIVERGED:
                        self.scheduler.plan.diverged(self.peer, frame.header.origin)
                    elif outcome is Outcome.AHEAD:
                        self.scheduler.plan.ask_again(self.peer, frame.header.origin)
                    self._place += frame.length
                self._backlog.popleft()
                self._place = 0
        except (LogReadOnly, LogClosed):
            # The stream ends by it; what waits is asked for again on the next one.
            self._backlog.clear()
            raise
        return True

    def _has_room(self) -> None:
        self._stop_waiting = None
        self.on_room()

    def close(self) -> None:
        """Wait for room no more: the stream has ended."""
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None

    def _allowed(self, origin: Origin) -> Allowed | None:
        asked = self._asked.get(origin)
        if asked is None:
            return None
        assignment = self.scheduler.plan.assigned.get(origin)
        if assignment is None or assignment.peer != self.peer:
            # It was told to stop, or is about to be: what follows is applied, and what does not is no lie.
            return Allowed(is_only_answer=False, gap_to=None)
        # With several wants of an origin on this stream, what answers an earlier one may still be under way.
        return Allowed(is_only_answer=asked == 1, gap_to=assignment.gap_to, is_final=assignment.is_final)
