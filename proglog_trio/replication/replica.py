"""A node's part in replication: what it has, what the others have, and what it pulls from whom.

It knows frames, positions and times, and nothing of connections: sessions are opened and closed by whoever runs the
streams, and hand over messages. The same code runs under gRPC and in simulated clusters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain

from attrs import Factory, define, evolve, field, frozen, validators

from proglog_trio.errors import LogClosed, LogReadOnly
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.lived_time import LivedTime
from proglog_trio.log.format.clock import FURTHEST_AHEAD_MILLISECONDS
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import MissingRange, OriginState
from proglog_trio.log.log import Log
from proglog_trio.replication.acknowledgements import Achieved, Acknowledgements
from proglog_trio.replication.advertiser import Teller
from proglog_trio.replication.applier import GIVEN_UP, Applier
from proglog_trio.replication.decisions import Decision, Pass, PlanConfig, Start
from proglog_trio.replication.directories import Directories
from proglog_trio.replication.events import (
    Diverged,
    GapMarked,
    LogTimeReturned,
    MissingFilled,
    PeerLied,
    ReplicationCounters,
    ReplicationEvent,
)
from proglog_trio.replication.messages import Hello, HolderNews, OriginRange, Positions, Told
from proglog_trio.replication.peer_clocks import PeerClocks
from proglog_trio.replication.progress import Holders
from proglog_trio.replication.pull_plan import PullPlan
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.source_session import SourceSession

SequenceRange = tuple[Origin, int, int]
"""An origin, a sequence, and the one after the last."""

MAX_ORIGINS = 65_536
RETURN_SECONDS = 3600.0
"""Log time returns to the wall clock at most so often: it takes an origin each time, and a clock may jump for ever."""
LATE_SECONDS = 0.5
"""A decision that is later than this was not made because the process was stopped, or its loop was held."""
READING_SECONDS = 0.5
"""How long what has arrived meanwhile is read before the time of decisions goes on."""


@frozen(kw_only=True)
class ReplicationConfig:
    """How a node replicates. Times are in seconds.

    Attributes:
        plan: see PlanConfig.
        acknowledgement_seconds: how often a puller tells a source that its records have arrived, at most.
        position_seconds: how often everything else about positions is told, at most; with many peers, more rarely.
        position_seconds_per_peer: by so much for each peer.
        origin_retention_seconds: an origin that nobody writes and of which no log has anything left is forgotten when
            nodes have run on this directory for so long since retention left nothing of it here.
    """

    plan: PlanConfig = Factory(PlanConfig)
    acknowledgement_seconds: float = field(default=0.005, validator=validators.ge(0))
    position_seconds: float = field(default=0.1, validator=validators.ge(0))
    position_seconds_per_peer: float = field(default=0.02, validator=validators.ge(0))
    origin_retention_seconds: float = field(default=30 * 86_400.0, validator=validators.ge(0))


@define(eq=False, repr=False)
class Replica:
    """A node's part in replication.

    Decisions go by the time that this process lived through: while it was stopped it could not see who sent what, so no
    source has stalled then, nothing has been missing for long, and nobody has been waited for.

    Attributes:
        log: this node's.
        hello: what it says of itself.
        clock: seconds, monotonic; goes on while the process is stopped.
        emit: is told what happens.
        on_decide: called when next_deadline may have changed.
        directories: who may hold what nobody else has; on_directories is called when that is to be kept on disk.
        on_superseded: called when a later opening of this node's own directory is known than this one, with its number;
            raise_opening must follow, and reopened then.
        errors: where unforeseen errors of one session, origin or decision are counted.
    """

    log: Log
    hello: Hello
    clock: Callable[[], float]
    emit: Callable[[ReplicationEvent], None]
    config: ReplicationConfig
    counters: ReplicationCounters = Factory(ReplicationCounters)
    errors: InternalErrors = Factory(InternalErrors)
    on_decide: Callable[[], None] = lambda: None
    directories: Directories = field(init=False)
    on_directories: Callable[[], None] = lambda: None
    on_superseded: Callable[[int], None] = lambda _opened: None
    plan: PullPlan = field(init=False)
    holders: Holders = field(init=False)
    acknowledgements: Acknowledgements = field(init=False)
    pulls: dict[str, PullSession] = Factory(dict)
    sources: set[SourceSession] = Factory(set)
    # The directory ids of members that are alive, by their names: what a dead disk held counts for nothing.
    living: dict[str, bytes] = Factory(dict)
    peer_clocks: PeerClocks = Factory(PeerClocks)
    _returned_at: float = float("-inf")
    _seen: dict[Origin, OriginState] = Factory(dict)
    _forget_watch: Callable[[], None] = field(init=False)
    _time: LivedTime = field(init=False)
    # The next deadline as it was last told of, in lived time: by then the clock is read.
    _due: float | None = None
    # Origins of which what is missing is to be looked at; who lacked each missing range; which are to be given up.
    _unreviewed: set[Origin] = Factory(set)
    _asked: dict[SequenceRange, set[bytes]] = Factory(dict)
    _lost: set[SequenceRange] = Factory(set)
    # Where origins ended of which peers have nothing left, and this log never had anything.
    _retired: dict[Origin, int] = Factory(dict)

    def __attrs_post_init__(self) -> None:
        self._time = LivedTime(self.clock(), LATE_SECONDS, READING_SECONDS)
        self.plan = PullPlan(self.hello.node_name, self.log.planned_origins.get, self.config.plan)
        # A log may be opened on a disk without room.
        self.plan.paused = self.log.read_only_reason is not None
        self.plan.boundary = partial(self.errors.boundary, Where.REPLICATION)
        self.know(Directories(self.hello.directory_id))
        self.holders = Holders(self.hello.directory_id, self._held_more, self.living.values)
        self.acknowledgements = Acknowledgements(self._holders_of)
        self._seen = dict(self.log.origins)
        self._forget_watch = self.log.notify_durable(self._log_changed)

    def know(self, directories: Directories) -> None:
        """Go on from what was kept on disk of which directories there are."""
        self.directories = self.plan.directories = directories
        directories.on_change = self._directories_changed

    def _directories_changed(self, ids: list[bytes]) -> None:
        self.plan.touch_all()
        self._unreviewed.update(self.log.origins)
        for session in self._sessions():
            with self.errors.boundary(Where.REPLICATION):
                session.teller.note_directories(ids)
                session.on_ready()
        self.on_directories()

    def close(self) -> None:
        """End all waits; no session is open any more."""
        self._forget_watch()
        self.acknowledgements.end_all()

    # -- this node -----------------------------------------------------------------------------------------------------

    @property
    def writing(self) -> Origin | None:
        """The origin under which this node appends; None before its first append, or that is durable."""
        return self.log.own_origin

    def _log_changed(self) -> None:
        """Tell the others what is durable now."""
        self.plan.own = self.writing
        if (self.log.read_only_reason is not None) != self.plan.paused:
            self.plan.pause(not self.plan.paused)
            self.decide()
        origins = self.log.origins
        changed = [origin for origin, state in origins.items() if self._seen.get(origin) is not state]
        if not changed:
            return
        self._seen.update((origin, origins[origin]) for origin in changed)
        boundary = self.errors.boundary(Where.REPLICATION)
        for pull in list(self.pulls.values()):
            with boundary:
                writing = self.plan.peers[pull.peer].writing
                pull.teller.note(changed, urgent=writing is not None and writing in changed)
                pull.on_ready()
        for source in list(self.sources):
            with boundary:
                source.teller.note(changed, urgent=False)
                source.on_ready()

    def old_origins(self) -> dict[Origin, int]:
        """Return where origins ended that nobody writes and of which no log that is known has anything left."""
        oldest = self.log.running_time.milliseconds() - self.config.origin_retention_seconds * 1000
        written = self._written()
        return {
            origin: state.next
            for origin, state in self.log.origins.items()
            if state.low == state.next
            and state.emptied is not None
            and state.emptied <= oldest
            and origin not in written
            and not self._is_left_at_a_peer(origin)
        }

    def _is_left_at_a_peer(self, origin: Origin) -> bool:
        return any(
            (held := peer.ranges.get(origin)) is not None and held.low < held.next for peer in self.plan.peers.values()
        )

    def forget_origins(self, origins: Iterable[Origin]) -> int:
        """Drop old origins, whose ends are kept among the log's retired origins by now; return how many those are."""
        forgotten = self.log.durable.forget_origins(origins)
        for origin in forgotten:
            self._seen.pop(origin, None)
        self.plan.forget(forgotten)
        self.holders.forget_origins(forgotten)
        for session in self._sessions():
            with self.errors.boundary(Where.REPLICATION):
                session.teller.note_forgotten(forgotten)
                session.on_ready()
        return len(forgotten)

    def _sessions(self) -> Iterable[PullSession | SourceSession]:
        return list(chain(self.pulls.values(), self.sources))

    def take_retired(self) -> dict[Origin, int]:
        """Return where origins ended that only peers remember, once: they are to be kept among the retired origins.

        Not before every peer has said what it has: what one has nothing left of is not gone while another has it.
        """
        if not all(peer.has_told for peer in self.plan.peers.values()):
            return {}
        waiting = {origin: end for origin, end in self._retired.items() if origin not in self.log.origins}
        self._retired = {origin: end for origin, end in waiting.items() if self._is_left_at_a_peer(origin)}
        return {origin: end for origin, end in waiting.items() if origin not in self._retired}

    # -- members -------------------------------------------------------------------------------------------------------

    def joined(self, name: str) -> None:
        """Take note of a peer; a stream to it may be opened."""
        self.plan.joined(name, self.now())
        self._peers_changed()

    def left(self, name: str) -> None:
        """Take note that a peer is no member any more; the stream to it is closed."""
        self.plan.left(name)
        self.living.pop(name, None)
        self.peer_clocks.forget(name)
        self._peers_changed()

    def alive(self, name: str, directory_id: bytes) -> None:
        """Take note of a member's disk, which counts for acknowledgements while the member is alive."""
        self.living[name] = directory_id
        self.directories.met(directory_id, name)

    def _peers_changed(self) -> None:
        self.review_all()
        slow = self.config.position_seconds + self.config.position_seconds_per_peer * len(self.plan.peers)
        for session in self._sessions():
            session.teller.slow_seconds = slow
        self.decide()

    # -- streams -------------------------------------------------------------------------------------------------------

    def _new_teller(self) -> Teller:
        slow = self.config.position_seconds + self.config.position_seconds_per_peer * len(self.plan.peers)
        return Teller(self.config.acknowledgement_seconds, slow)

    def open_pull(self, name: str) -> PullSession:
        """Begin to pull from a peer that has joined, on a stream that is open."""
        applier = Applier(self.log, name, self.counters, self._emit)
        session = PullSession(self, name, self._new_teller(), applier)
        self.pulls[name] = session
        return session

    def close_pull(self, session: PullSession) -> None:
        """The stream is gone."""
        session.close()
        if self.pulls.get(session.peer) is session:
            del self.pulls[session.peer]
            self.peer_clocks.disconnected(session.peer)
            self.plan.disconnected(session.peer, self.now())
            self.decide()

    def open_source(self) -> SourceSession:
        """Begin to serve a puller."""
        session = SourceSession(self, self._new_teller())
        self.sources.add(session)
        return session

    def close_source(self, session: SourceSession) -> None:
        """The stream is gone."""
        self.sources.discard(session)

    def greeted(self, session: PullSession, hello: Hello) -> None:
        """A source has said who it is."""
        self.living[session.peer] = hello.directory_id
        self.plan.connected(session.peer, hello.directory_id)
        self._met(session.teller, hello)

    def pulled_by(self, session: SourceSession, hello: Hello) -> None:
        """A puller has said who it is."""
        self._met(session.teller, hello)

    def greeted_again(self, before: Hello, hello: Hello) -> Hello:
        """Take it that a node's directory counts as opened again; return what holds now. Raises PeerLied."""
        if evolve(hello, opened=before.opened) != before or hello.opened < before.opened:
            raise PeerLied(f"{before.node_name} says that it is another than before")
        return hello

    def _met(self, teller: Teller, hello: Hello) -> None:
        self.directories.met(hello.directory_id, hello.node_name)
        known = self.holders.opening_of(hello.directory_id)
        if known > hello.opened:
            teller.note_superseded(known)
        self._tell_of_others(teller)

    def reopened(self, opened: int) -> None:
        """This node's directory counts as opened again, by this number: say so, and what it holds, to everybody."""
        self.hello = evolve(self.hello, opened=opened)
        for session in self._sessions():
            with self.errors.boundary(Where.REPLICATION):
                session.say_hello_again()

    def _tell_of_others(self, teller: Teller) -> None:
        written = self._written()
        for directory_id in self.holders.known():
            teller.note_other(directory_id, written)

    def _written(self) -> set[Origin]:
        """Return the origins that somebody writes, as far as this node knows."""
        written = {peer.writing for peer in self.plan.peers.values()} | {self.writing}
        return {origin for origin in written if origin is not None}

    # -- news ----------------------------------------------------------------------------------------------------------

    def take_positions(self, name: str, positions: Positions) -> None:
        """Take what a source says that it has.

        Raises:
            PeerLied: it says more than any node has.
        """
        peer = self.plan.peers[name]
        if len(peer.ranges) + sum(origin not in peer.ranges for origin in positions.ranges) > MAX_ORIGINS:
            raise PeerLied(f"{name} says that it has more than {MAX_ORIGINS} origins")
        session = self.pulls[name]
        if session.hello is not None:
            self.learn(session.hello, positions)
        self._unreviewed.update(positions.ranges)
        for origin, held in positions.ranges.items():
            is_retired = held.low == held.next and origin not in self.log.origins
            if is_retired and held.next > self._retired.get(origin, 0) and len(self._retired) < MAX_ORIGINS:
                self._retired[origin] = held.next
        for origin in self.plan.positions(name, positions):
            mine = self.log.planned_origins[origin]
            self._emit(
                Diverged(name, origin, _place_of(OriginRange.of_state(mine)), _place_of(positions.ranges[origin]))
            )

    def learn(self, hello: Hello, positions: Positions) -> None:
        """Take what a node says of its own disk, for acknowledgements."""
        nexts = {origin: held.next for origin, held in positions.ranges.items()}
        absent = {origin: ranges for origin, held in positions.ranges.items() if (ranges := held.absent)}
        self.holders.learn(hello.directory_id, hello.opened, nexts, absent)

    def take_news(self, others: Iterable[HolderNews]) -> None:
        """Take what a node says about third ones."""
        for news in others:
            if news.directory_id == self.hello.directory_id:
                if news.opened > self.hello.opened:
                    self.on_superseded(news.opened)
                continue
            self.holders.learn(news.directory_id, news.opened, news.nexts, news.absent, from_itself=False)

    def take_clock(self, name: str, theirs: int, took: float) -> None:
        """Take what a source says that its wall clock says.

        When most peers agree with this node's wall clock and log time is far ahead of it, this node's clock was wrong
        and is right now: log time returns to it, or every cause of this node would be too far ahead for the others.

        Args:
            name: the peer's.
            theirs: milliseconds since the Unix epoch.
            took: seconds between question and answer.
        """
        now = self.clock()
        change = self.peer_clocks.take(name, theirs, self.log.wall_clock(), took, now)
        if change is not None:
            self._emit(change)
        ahead = self.log.log_time_ahead
        if (
            ahead > FURTHEST_AHEAD_MILLISECONDS
            and now >= self._returned_at + RETURN_SECONDS
            and self.peer_clocks.confirm_mine(now)
            and self.log.return_to_wall_clock()
        ):
            self._returned_at = now
            self._emit(LogTimeReturned(ahead))

    def peer_clocks_ahead(self) -> dict[str, float]:
        """Return by how many seconds which peer's wall clock is ahead of this node's, where that is known."""
        now = self.clock()
        readings = {name: self.peer_clocks.reading_of(name, now) for name in self.plan.peers}
        return {name: reading.ahead / 1000 for name, reading in readings.items() if reading is not None}

    def _emit(self, event: ReplicationEvent) -> None:
        if isinstance(event, Diverged):
            self.counters.divergences += 1
        self.emit(event)

    def _held_more(self, directory_id: bytes, origins: Collection[Origin]) -> None:
        written = self._written().intersection(origins)
        if written:
            for session in self._sessions():
                with self.errors.boundary(Where.REPLICATION):
                    session.teller.note_other(directory_id, written)
                    session.on_ready()
        self.acknowledgements.held_more(origins)

    # -- acknowledgements ----------------------------------------------------------------------------------------------

    def _holders_of(self, origin: Origin, first: int, following: int) -> int:
        return self.holders.count(origin, first, following, set(self.living.values()))

    def wait_acknowledged(
        self,
        origin: Origin,
        first: int,
        following: int,
        wanted: int,
        seconds: float,
        done: Callable[[Achieved], None],
    ) -> None:
        """Call done once so many nodes, this one included, have the sequences [first, following), or in some time."""

        def settle(achieved: Achieved) -> None:
            if achieved.reached:
                self.counters.acknowledgements_reached += 1
            else:
                self.counters.acknowledgements_missed += 1
            with self.errors.boundary(Where.REPLICATION):
                done(achieved)

        self.acknowledgements.wait(origin, first, following, wanted, self.now() + seconds, settle)
        self._decided()

    # -- decisions -----------------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float | None:
        """When advance must be called, if nothing happens before; in seconds."""
        return None if self._due is None else self._time.reading_of(self._due)

    def now(self) -> float:
        """Return the time in seconds, without the pauses in which this process was stopped."""
        if self._time.advance(self.clock(), self._due):
            self.counters.pauses += 1
        return self._time.now

    def _decided(self) -> None:
        """Note when decisions are due next, and tell."""
        deadlines = (self.plan.next_deadline, self.acknowledgements.next_deadline)
        self._due = min((deadline for deadline in deadlines if deadline is not None), default=None)
        self.on_decide()

    def advance(self) -> None:
        """Do what is due."""
        self.acknowledgements.advance(self.now())
        self.decide()

    def decide(self) -> None:
        """Decide whom to pull from, and tell them."""
        boundary = self.errors.boundary(Where.REPLICATION)
        for decision in self.plan.decide(self.now()):
            with boundary:
                self._carry_out(decision)
        self._decided()

    def _carry_out(self, decision: Decision) -> None:
        if isinstance(decision, Pass):
            self._pass(decision)
            return
        session = self.pulls.get(decision.peer)
        if session is None:
            return
        if isinstance(decision, Start):
            session.want(decision.want)
        else:
            session.stop(decision.origin)

    def _pass(self, decision: Pass) -> None:
        state = self.log.planned_origins.get(decision.origin, OriginState())
        applier = Applier(self.log, self.hello.node_name, self.counters, self._emit)
        with contextlib.suppress(LogReadOnly, LogClosed):  # then nothing is pulled, either
            applier.mark(
                decision.origin,
                state.next,
                decision.to_sequence,
                decision.previous_header_crc,
                is_final=decision.is_final,
            )

    def tell(self, teller: Teller) -> Told:
        """Return what the other side of a stream is to be told now."""
        return teller.take(self.clock(), self.log.origins, self.writing, self.holders, self.directories)

    # -- what is missing -----------------------------------------------------------------------------------------------

    def review_all(self) -> None:
        """Look again at all that is missing."""
        self._unreviewed.update(self.log.origins)

    def review_missing(self) -> bool:
        """Look at what is missing of origins of which something has changed; tell whether there is work for a repair.

        What a connected peer has is to be fetched; what nobody will have any more is given up.
        """
        origins, self._unreviewed = self._unreviewed, set()
        work = False
        for origin in origins:
            state = self.log.origins.get(origin)
            if state is None:
                continue
            for each in state.missing:
                key = origin, each.from_sequence, each.to_sequence
                asked = self._asked.setdefault(key, set())
                self.plan.ask(*key, asked)
                if self.plan.is_lost(*key, asked):
                    self._lost.add(key)
                # What is lost and offered all the same, as it is damaged there, is given up where it cannot be fetched.
                work = work or key in self._lost or bool(self.plan.offered(*key))
        return work

    def give_up_missing(self, origin: Origin | None) -> set[SequenceRange]:
        """Give up what is missing of an origin (None: of all), since somebody says so; return what that is.

        They are gaps once the next repair has written that.
        """
        given_up = {
            (each, missing.from_sequence, missing.to_sequence)
            for each, state in self.log.origins.items()
            if origin is None or each == origin
            for missing in state.missing
        }
        self._lost |= given_up
        return given_up

    def records_missing(self, ranges: Iterable[SequenceRange]) -> int:
        """Return how many records of some ranges are missing at present."""
        return sum(
            max(min(each.to_sequence, following) - max(each.from_sequence, first), 0)
            for origin, first, following in ranges
            if (state := self.log.origins.get(origin)) is not None
            for each in state.missing
        )

    def given_up(self) -> dict[Origin, list[MissingRange]]:
        """Return what a repair is to give up, where it cannot be fetched."""
        found: dict[Origin, list[MissingRange]] = {}
        for origin, state in self.log.origins.items():
            for each in state.missing:
                if (origin, each.from_sequence, each.to_sequence) in self._lost:
                    found.setdefault(origin, []).append(each)
        return found

    def missing_settled(self, filled: int, gaps: Mapping[Origin, Sequence[tuple[int, int]]]) -> None:
        """Take note of what a repair did with what was missing."""
        if filled:
            self.counters.missing_filled += filled
            self._emit(MissingFilled(filled))
        for origin, ranges in gaps.items():
            for first, following in ranges:
                self.counters.gaps_marked += 1
                self.counters.records_missing += following - first
                self._emit(GapMarked(origin, first, following, GIVEN_UP))
        current = {
            (origin, each.from_sequence, each.to_sequence)
            for origin, state in self.log.origins.items()
            for each in state.missing
        }
        self._lost &= current
        self._asked = {key: asked for key, asked in self._asked.items() if key in current}


def _place_of(held: OriginRange) -> str:
    return f"sequences {held.low} to {held.next - 1}, the last header's CRC {held.last_header_crc:#010x}"
