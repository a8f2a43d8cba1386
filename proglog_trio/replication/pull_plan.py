"""Which peer each origin is pulled from: one source an origin.

The rules, in the order in which they are asked for each origin that a peer has:

1. It is pulled from the node that writes it, also while that has nothing new: so new frames come at once.
2. When the log has not advanced for `stall_seconds` although a peer shows more (the writer is dead, paused, wiped, or
   cut off from this node alone), it is pulled from the peer that shows most, and the writer is left alone for a while.
3. What no node writes comes from any peer that has it. Of several that would do equally well, here and in 2, the
   nearest is taken (distance.py); of those that are equally near, different nodes turn to different ones. Where it is
   pulled from already it goes on, whoever else is near: a stream that is moved costs more than it gains.
4. A peer that lacks the next sequences (retention, a gap, damage) is passed over. Only when every peer that is known
   has been heard, or has been silent for long, and none has them, does the log go on after them. They are *missing at
   present* while a directory that may hold them is away, or has them damaged; they are a gap when all that there are
   were asked, when a peer has given them up, or when they are retired at a peer.

Nothing here does I/O or reads a clock: times go in as seconds, decisions come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

from attrs import Factory, define, evolve

from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.gap_marker import HIGHEST_SEQUENCE
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.segment_header import OriginState
from proglog_trio.replication.decisions import Assignment, Decision, Look, OriginPull, Pass, PlanConfig, Start, Stop
from proglog_trio.replication.distance import RoundTripTo, distance_class, unknown_round_trip
from proglog_trio.replication.messages import Ended, EndReason, OriginRange, Positions, Want
from proglog_trio.replication.peers.peer_table import PeerTable
from proglog_trio.replication.peers.peer_view import PeerView

DECIDED_AT_ONCE = 64
"""Origins; with fifty peers each takes a tenth of a millisecond."""


@define(repr=False)
class PullPlan:
    """The decisions, per origin.

    Attributes:
        node_name: of this node; it decides, with the origin, which of several equal sources it turns to.
        state_of: what this node's log has of an origin, what is being written included.
        peers: what they say that they have. Only this plan changes the views in it.
        config: see PlanConfig.
        boundary: what the decision about each origin is made in, so that one that fails is the only one.
        paused: nothing is pulled: the log takes no records at present. See pause.
        own: the origin that this node writes; never pulled. See writes.
        round_trip_to: how far away peers are.
        assigned: from which peer each origin is pulled: a connected one, of which that was asked on its present stream.
    """

    node_name: str
    state_of: Callable[[Origin], OriginState | None]
    peers: PeerTable
    config: PlanConfig = Factory(PlanConfig)
    boundary: Callable[[], AbstractContextManager[object]] = nullcontext
    paused: bool = False
    own: Origin | None = None
    round_trip_to: RoundTripTo = unknown_round_trip
    assigned: dict[Origin, Assignment] = Factory(dict)
    # Of each origin that was decided about, until the log forgets it, or until no peer names one that it never had.
    _pulls: dict[Origin, OriginPull] = Factory(dict)
    # What something has changed for since the last decision, in the order in which it did: a dict, since a set of them
    # has another order in every process, and simulated clusters are to be replayed.
    _dirty: dict[Origin, None] = Factory(dict)
    # When the last decision was made, if it left some of them for the next; else None.
    _goes_on_at: float | None = None
    # When each origin is looked at again though nothing changes; the earliest of the times that were asked for.
    _deadlines: dict[Origin, float] = Factory(dict)

    # -- what is known -------------------------------------------------------------------------------------------------

    def joined(self, name: str, now: float) -> None:
        """Reckon with a peer, which is not connected yet."""
        self.peers.views[name] = PeerView(name, disconnected_since=now)
        self._touch_unavailable()

    def left(self, name: str) -> None:
        """Forget a peer; it is not connected any more."""
        self._touch_peer(self.peers.views.pop(name))
        self._touch_unavailable()

    def connected(self, name: str, directory_id: bytes) -> None:
        """Pull from a peer, to which a stream is open; all that it has follows with its positions."""
        peer = self.peers.views[name]
        self._touch_peer(peer)
        peer.connect(directory_id)

    def disconnected(self, name: str, now: float) -> None:
        """Pull from a peer no more: the stream to it has ended, and with it what it was told to send."""
        peer = self.peers.views[name]
        peer.disconnect(now)
        self._touch(peer.ranges)
        for origin in [origin for origin, assignment in self.assigned.items() if assignment.peer == name]:
            del self.assigned[origin]
            self._touch([origin])
        self._touch_unavailable()

    def positions(self, name: str, positions: Positions) -> list[Origin]:
        """Go by what a peer says that it has; return the origins in which its log and this one have diverged."""
        peer = self.peers.views[name]
        before = peer.writing
        peer.heard(positions)
        self._touch(positions.ranges)
        self._touch(positions.forgotten)
        self._touch(origin for origin in (before, peer.writing) if origin is not None)
        return [
            origin for origin, held in positions.ranges.items() if self._differs(origin, held) and peer.diverge(origin)
        ]

    def _differs(self, origin: Origin, held: OriginRange) -> bool:
        mine = self.state_of(origin)
        if mine is None:
            return False
        # What only this node can have written a peer has had from another life of this directory: it was restored.
        if origin == self.own and held.next > mine.next:
            return True
        return mine.next == held.next > 0 and mine.last_header_crc != held.last_header_crc

    def advanced(self, origin: Origin, now: float) -> None:
        """Let the time of an origin begin anew: frames of it were appended."""
        progress = self._pulls.get(origin)
        if progress is not None:
            progress.advanced_at = now
        assignment = self.assigned.get(origin)
        if assignment is not None:
            peer = self.peers.views[assignment.peer]
            if origin in peer.avoided:
                peer.forgive(origin)
            if assignment.gap_to is not None:
                self.assigned[origin] = evolve(assignment, gap_to=None)

    def ended(self, name: str, ended: Ended, now: float) -> None:
        """Look for another source of an origin, of which a peer sends no more."""
        retry_at = now + self.config.retry_damage_seconds if ended.reason is EndReason.DAMAGED else None
        self.peers.views[name].cannot_send(ended, retry_at)
        self._unassign(name, ended.origin)

    def diverged(self, name: str, origin: Origin) -> None:
        """Pull an origin from a peer no more on this stream: its frames are not those of this log."""
        self.peers.views[name].diverge(origin)
        self._unassign(name, origin)

    def ask_again(self, name: str, origin: Origin) -> None:
        """Decide anew about an origin: what a peer sends of it does not go on where the log does."""
        self._unassign(name, origin)

    def _unassign(self, name: str, origin: Origin) -> None:
        assignment = self.assigned.get(origin)
        if assignment is not None and assignment.peer == name:
            del self.assigned[origin]
        self._touch([origin])

    def forget(self, origins: Iterable[Origin]) -> None:
        """Drop origins that the log no longer knows."""
        for origin in origins:
            self._pulls.pop(origin, None)
            self._deadlines.pop(origin, None)

    def _is_bygone(self, origin: Origin, showing: list[PeerView], now: float) -> bool:
        """Tell whether this log knows nothing of an origin, and no peer that does has anything left of it.

        To mark all of it as a gap would only keep in every log, for ever, that it was.
        """
        return self.state_of(origin) is None and all(
            peer.available_from(origin, 0, now) is None and not peer.is_damaged_at(origin, 0, now) for peer in showing
        )

    def writes(self, own: Origin | None) -> None:
        """Never pull an origin: this node writes it."""
        self.own = own

    def pause(self, paused: bool) -> None:
        """Pull nothing, or go on; every origin is looked at again at the next decision."""
        self.paused = paused
        for progress in self._pulls.values():
            # What was so before the pause was not looked at in it, and may have changed and changed back.
            progress.behind_since = progress.unavailable_since = None
        self.touch_all()

    def touch_all(self) -> None:
        """Look at every origin again at the next decision."""
        for peer in self.peers.views.values():
            self._touch(peer.ranges)
        self._touch(self.assigned)

    def _touch(self, origins: Iterable[Origin]) -> None:
        self._dirty.update(dict.fromkeys(origins))

    def _touch_peer(self, peer: PeerView) -> None:
        self._touch(peer.ranges)
        self._touch([] if peer.writing is None else [peer.writing])

    def _touch_unavailable(self) -> None:
        self._touch([origin for origin, progress in self._pulls.items() if progress.unavailable_since is not None])

    # -- deciding ------------------------------------------------------------------------------------------------------

    @property
    def next_deadline(self) -> float | None:
        """When to decide again, if nothing happens before."""
        looks = self._deadlines.values() if self._goes_on_at is None else (*self._deadlines.values(), self._goes_on_at)
        return min(looks, default=None)

    def decide(self, now: float) -> list[Decision]:
        """Decide about origins that something has changed for, or whose time has come.

        About so many of them that it takes some milliseconds: there may be tens of thousands when a peer is gone. If
        any are left they are the next decision's, which is due at once.
        """
        due = [origin for origin, deadline in self._deadlines.items() if deadline <= now]
        self._touch(due)
        decisions: list[Decision] = []
        dirty = list(islice(self._dirty, DECIDED_AT_ONCE))
        for origin in dirty:
            del self._dirty[origin]
        self._goes_on_at = now if self._dirty else None
        for origin in dirty:
            self._deadlines.pop(origin, None)
            # A boundary tells nothing of what it caught.
            is_decided = False
            with self.boundary():
                decisions.extend(self._decide(origin, now))
                is_decided = True
            if not is_decided:
                self._look_again(origin, now + self.config.stall_seconds)
        return decisions

    def _decide(self, origin: Origin, now: float) -> Iterator[Decision]:
        current = self.assigned.get(origin)
        # Also while it is paused: what was assigned before is stopped.
        chosen = None if origin == self.own or self.paused else self._choose(origin, current, now)
        if isinstance(chosen, Pass):
            # The marker moves the log's next: whether anything is left to do is decided in the next round.
            self._dirty[origin] = None
            yield chosen
            chosen = None
        if chosen is current:
            return
        if current is not None:
            yield Stop(current.peer, origin)
        if chosen is None:
            self.assigned.pop(origin, None)
            return
        self.assigned[origin] = chosen
        yield Start(chosen.peer, Want(origin, chosen.from_sequence))

    def _choose(self, origin: Origin, current: Assignment | None, now: float) -> Assignment | Pass | None:
        """Return the source that is right now: the current assignment itself if it is."""
        look = self._look_at(origin, current, now)
        # Without anything to show for it, silence is no stall.
        if current is not None and look.showing:
            self._avoid_if_stalled(look, current)
        if look.writer is not None and look.can_follow(look.writer):
            return look.assign(look.writer, look.following)
        if not look.showing:
            return self._keep_if_busy(look)
        return self._choose_among(look) if look.able else self._pass(look)

    def _look_at(self, origin: Origin, current: Assignment | None, now: float) -> Look:
        state = self.state_of(origin)
        following = state.next if state is not None else 0
        showing = list(self.peers.showing_more(origin, following))
        if self._is_bygone(origin, showing, now):
            showing = []
        pull = self._pulls.setdefault(origin, OriginPull(following, now))
        if following > pull.next:
            pull.next, pull.unavailable_since = following, None
            pull.asked.clear()
        if not showing:
            pull.behind_since = pull.unavailable_since = None
        elif pull.behind_since is None:
            pull.behind_since = now
        # More than next is not all of it: a peer may show more and not have what comes next.
        able = [peer for peer in showing if peer.has(origin, following, now)]
        return Look(origin, now, following, current, pull, showing, able, self.peers.writer_of(origin))

    def _avoid_if_stalled(self, look: Look, current: Assignment) -> None:
        origin, now = look.origin, look.now
        # The latest of them: a source has stalled only if it could have sent something for so long.
        since = max(look.pull.advanced_at, current.began, look.pull.behind_since or 0.0)
        due = since + self.config.stall_seconds
        others = [peer for peer in look.able if peer.name != current.peer and not peer.avoids(origin, now)]
        if due > now or not others:
            # Where no other source can take its place, to leave it alone would only stop what may yet come.
            self._look_again(origin, max(due, now + self.config.stall_seconds / 2))
            return
        peer = self.peers.views[current.peer]
        self._look_again(origin, peer.avoid(origin, now, self.config.avoid_seconds, self.config.longest_avoid_seconds))

    def _keep_if_busy(self, look: Look) -> Assignment | None:
        """Return the source for a while: there is nothing new, and another may yet get more of it before it does."""
        if look.current is None:
            if look.writer is None and not self._is_known(look.origin):
                del self._pulls[look.origin]
            return None
        due = max(look.pull.advanced_at, look.current.began) + self.config.idle_seconds
        if due <= look.now:
            return None
        self._look_again(look.origin, due)
        return look.current

    def _is_known(self, origin: Origin) -> bool:
        """Tell whether the log or a peer has anything to say of an origin; of others nothing is to be kept."""
        return self.state_of(origin) is not None or any(origin in peer.ranges for peer in self.peers.views.values())

    def _choose_among(self, look: Look) -> Assignment | None:
        """Return the best of the peers that have what comes next."""
        origin, now, current = look.origin, look.now, look.current
        # Those that stalled are better than none.
        willing = [peer for peer in look.able if not peer.avoids(origin, now)] or look.able
        if current is not None and current.gap_to is None and any(peer.name == current.peer for peer in willing):
            return current
        if look.writer is not None and not look.writer.connected and current is None:
            # It may be back in a moment, and what it writes should cross to this node once only.
            due = max(look.pull.advanced_at, look.pull.behind_since or now) + self.config.stall_seconds
            if due > now:
                self._look_again(origin, due)
                return None
        most = max(peer.ranges[origin].next for peer in willing)
        best = [peer for peer in willing if peer.ranges[origin].next == most]
        self._look_again(origin, now + self.config.stall_seconds)
        return look.assign(min(best, key=lambda peer: self._preference(origin, peer.name)), look.following)

    def _pass(self, look: Look) -> Assignment | Pass | None:
        """No peer that shows more can send what comes next: go on after it, once that is certain."""
        origin, following, now, pull = look.origin, look.following, look.now, look.pull
        if pull.unavailable_since is None:
            pull.unavailable_since = now
        # A peer that lacks the next one may have others that are passed with it: only one that has none at all counts.
        self.peers.ask(origin, following, HIGHEST_SEQUENCE, pull.asked)
        holding = self.peers.offered(origin, following, following + 1)
        if any(not peer.is_damaged_at(origin, following, now) for peer in holding):
            # What a peer says that it has is never given up: it could not send it a moment ago.
            self._look_again(origin, now + self.config.stall_seconds)
            return None
        due = pull.unavailable_since + (self.config.damage_seconds if holding else self.config.gap_seconds)
        for peer in self.peers.views.values():
            if not peer.connected:
                due = max(due, peer.disconnected_since + self.config.settle_seconds)
            elif not peer.has_told:
                due = max(due, now + self.config.settle_seconds)
        if due > now:
            self._look_again(origin, min(due, now + self.config.retry_damage_seconds))
            return None
        told = None if look.current is None else look.current.peer
        resuming = [
            # Of equals the one that was told to already: how near the others are may change with every look.
            (resumes_at, peer.name != told, self._preference(origin, peer.name), peer.name, peer)
            for peer in look.showing
            if (resumes_at := peer.available_from(origin, following, now)) is not None
        ]
        if not resuming:
            self._look_again(origin, now + self.config.retry_damage_seconds)
            # No peer can send anything of it: it is retired there, or cannot be read now.
            last = max((peer.ranges[origin] for peer in look.showing), key=lambda held: held.next)
            is_final = self.peers.is_gap(origin, following, last.next, pull.asked)
            return Pass(origin, last.next, last.last_header_crc, is_final)
        # From the one that leaves out least. What is passed is marked when its first frame comes, not now: the marker
        # takes that frame's previous-header CRC, and until then a peer that can send what comes next may connect.
        resumes_at, *_, peer = min(resuming)
        self._look_again(origin, now + self.config.stall_seconds)
        is_final = self.peers.is_gap(origin, following, resumes_at, pull.asked)
        return look.assign(peer, resumes_at, resumes_at, is_final=is_final)

    def _preference(self, origin: Origin, name: str) -> tuple[int, int]:
        """Return what is lower for the better one of sources that would do equally well.

        The nearer one; and then a number that spreads nodes over them, the same each time.
        """
        spread = crc32c(origin.data + self.node_name.encode() + b"\0" + name.encode())
        return distance_class(self.round_trip_to(name)), -spread

    def _look_again(self, origin: Origin, at: float) -> None:
        known = self._deadlines.get(origin)
        self._deadlines[origin] = at if known is None else min(at, known)
