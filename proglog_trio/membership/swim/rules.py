"""The rules of SWIM: what news of a member changes, and what is passed on.

Incarnations decide which of two pieces of news is newer. Only a member itself raises its incarnation, and it does so to
refute: a member that can still speak is never dead for long. At equal incarnations suspect overrides alive, and dead
overrides both (SWIM, section 4.2; memberlist differs in that addresses are part of a member and a conflict keeps the
older one).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from attrs import define, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.awareness import Awareness
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.effects import (
    Cause,
    Changed,
    Foreign,
    Gone,
    NameConflict,
    Notification,
    Seen,
    StatusChange,
)
from proglog_trio.membership.swim.foreigners import Belonging, Foreigners
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.swim.suspicion import Suspicion, shortest_suspicion
from proglog_trio.membership.swim.timers import Timer, Timers
from proglog_trio.membership.swim.versions import Versions, is_sound
from proglog_trio.membership.wire.memberlist import Alive, Dead, Suspect, encode_message

HIGHEST_INCARNATION = 2**32 - 1
MAX_NODES = 8192
"""Members beyond this are not taken in."""
MAX_NODE_BYTES = 4 * 1024 * 1024
"""Names and metas of all members together; beyond this none is taken in. A push/pull of so much, and of those who are
gone, is within the 20 MiB that receivers take; with ordinary names and tags it is enough for MAX_NODES."""

TRIES_PER_CHOICE = 4


@define
class Counters:
    """What happened since the core was made.

    Attributes:
        incompatible: news of members that are not taken in, since they and others here do not understand each other.
        of_other_clusters: what came from members of other clusters, or was about them, and was not taken: news of a
            member, a message, or a whole state.
    """

    suspected: int = 0
    refuted: int = 0
    declared_dead: int = 0
    conflicts: int = 0
    beyond_limit: int = 0
    incompatible: int = 0
    of_other_clusters: int = 0
    probes: int = 0
    probes_failed: int = 0
    packets_sent: int = 0
    bytes_sent: int = 0
    pauses: int = 0


@define(eq=False)
class _Running:
    """A suspicion and its timer."""

    suspicion: Suspicion
    timer: Timer


@define(eq=False)
class Rules:
    """Who is known, and what news of them does.

    Attributes:
        me: this node itself; it is among nodes.
        nodes: by name, in the order in which they are probed.
        leaving: this node is leaving: it does not refute its own death.
        notify: called with each piece of news.
        foreigners: the members of other clusters, who are not known.
        versions: of all members.
        is_later_life: tells by two metas whether a member that claims the name of one that has failed is the same one,
            started again. memberlist has no such rule: there the name is taken until the failed one is forgotten.
    """

    me: Node
    profile: GossipProfile
    rng: random.Random
    timers: Timers
    broadcasts: BroadcastQueue
    awareness: Awareness
    notify: Callable[[Notification], None]
    nodes: dict[str, Node] = field(factory=dict)
    order: list[str] = field(factory=list)
    foreigners: Foreigners = field(factory=Foreigners)
    is_later_life: Callable[[bytes, bytes], bool] = lambda _before, _now: False
    versions: Versions = field(factory=Versions)
    leaving: bool = False
    counters: Counters = field(factory=Counters)
    _suspicions: dict[str, _Running] = field(factory=dict)
    _incarnation: int = 0
    _node_bytes: int = 0
    _by_endpoint: dict[Endpoint, Node] = field(factory=dict)
    # While there is no room: who may make some, as it was an interval ago; None: nobody looked since.
    _silent: deque[Node] | None = None

    def start(self) -> None:
        """Say that this node is alive."""
        self._incarnation = max(self._incarnation, self.me.incarnation)
        self.me.incarnation = self._raise_incarnation()
        self._add(self.me)
        self.broadcast_me()
        self._change(self.me, NodeStatus.ALIVE, Cause.OWN, "it is this node", is_new=True)
        self.notify(Seen(self.me.name))

    @property
    def known(self) -> int:
        """How many members are known, the dead among them: what memberlist takes for the cluster's size."""
        return max(1, len(self.nodes))

    def broadcast_me(self, finished: Callable[[], None] | None = None) -> None:
        """Tell everybody this node's own state."""
        self.broadcasts.add(self._my_state(), self.me.name, finished)

    def _my_state(self) -> bytes:
        me = self.me
        message = Alive(
            incarnation=me.incarnation,
            node=me.name,
            addr=me.endpoint.address,
            port=me.endpoint.port,
            meta=me.meta,
            vsn=me.version,
        )
        return encode_message(message)

    def answer_to(self, accusation: Suspect | Dead) -> bytes | None:
        """Return what to tell a member that accuses this node of what it has refuted already; None: it has not.

        The refutation has missed that member, and is told no more once everybody should have it. Such a member would
        call this node dead although its probes are acknowledged.
        """
        if accusation.node != self.me.name or self.me.name not in self.nodes or self.leaving:
            return None
        return self._my_state() if accusation.incarnation < self.me.incarnation else None

    def say_again(self) -> None:
        """Say louder than before that this node is alive: others may have taken it for dead.

        So those who have forgotten it, and those who still hold it dead, take the same news.
        """
        if not self.leaving and self.me.name in self.nodes:
            self.me.incarnation = self._raise_incarnation()
            self.broadcast_me()

    def update_me(self, meta: bytes, finished: Callable[[], None] | None = None) -> None:
        """Tell everybody this node's new meta; before start nobody is told of the node at all."""
        if self.me.name in self.nodes:
            self._node_bytes += len(meta) - len(self.me.meta)
        self.me.meta = meta
        if self.me.name not in self.nodes:
            return
        self.me.incarnation = self._raise_incarnation()
        self.broadcast_me(finished)
        self.notify(Changed(self.me.name))

    # -- alive ---------------------------------------------------------------------------------------------------------

    def alive(self, news: Alive) -> None:
        """Take news that a member is alive."""
        endpoint = Endpoint(news.addr, news.port)
        mine = news.node == self.me.name
        if mine and self.leaving:
            return
        if not is_sound(news.vsn):
            self.counters.incompatible += 1
            return
        node = self.nodes.get(news.node)
        if self.is_foreign(news.node, news.meta) and not (mine and endpoint == self.me.endpoint):
            # About this node itself it is of an earlier life of the machine, and is refuted below.
            self._alive_elsewhere(news, endpoint, node)
            return
        moved = False
        if node is not None and node.endpoint != endpoint:
            if mine or not self._may_move(node, news):
                self.counters.conflicts += 1
                self.notify(NameConflict(news.node, endpoint, news.meta))
                return
            moved = True
        if mine:
            self._alive_me(news)
            return
        if node is not None and news.incarnation <= node.incarnation and not moved:
            return
        if not self.versions.fit(news.vsn, None if node is None else node.version):
            self.counters.incompatible += 1
            return
        if node is None:
            if not self._make_room(news):
                self.counters.beyond_limit += 1
                return
            node = Node(news.node, endpoint, b"", news.vsn, 0, NodeStatus.DEAD, self.timers.now)
            self._add(node)
            is_new = True
        else:
            is_new = False
        self._end_suspicion(news.node)
        self.broadcasts.add(encode_message(news), news.node)
        changed = node.meta != news.meta
        self._node_bytes += len(news.meta) - len(node.meta)
        self._leave_endpoint(node)
        self._by_endpoint[endpoint] = node
        self.foreigners.welcome(news.node, endpoint)
        self.versions.remove(node.version)
        self.versions.add(news.vsn)
        node.endpoint, node.told_address, node.meta, node.version = endpoint, news.addr, news.meta, news.vsn
        node.has_answered = node.has_answered and not moved
        node.incarnation = news.incarnation
        reappeared = node.is_gone
        if node.status is not NodeStatus.ALIVE:
            cause = Cause.ADDRESS if moved else Cause.INCARNATION
            reason = f"alive with incarnation {news.incarnation} at {endpoint}"
            self._change(node, NodeStatus.ALIVE, cause, reason, is_new=is_new)
        if reappeared:
            self.notify(Seen(news.node))
        elif changed:
            self.notify(Changed(news.node))

    def _may_move(self, node: Node, news: Alive) -> bool:
        """Tell whether a member's name may be had at another address."""
        if node.status is NodeStatus.DEAD:
            return self.is_later_life(node.meta, news.meta)
        return node.status is NodeStatus.LEFT

    def _alive_me(self, news: Alive) -> None:
        me = self.me
        if news.incarnation < me.incarnation:
            return
        if news.incarnation == me.incarnation and news.meta == me.meta and news.vsn == me.version:
            return
        self._refute(news.incarnation)

    # -- other clusters ------------------------------------------------------------------------------------------------

    def is_foreign(self, name: str, meta: bytes) -> bool:
        """Tell whether a member of a name and with a meta is of another cluster."""
        known = self.nodes.get(name)
        if known is not None and known.meta == meta:
            return False
        return self.foreigners.belonging(meta) is Belonging.ELSEWHERE

    def _alive_elsewhere(self, news: Alive, endpoint: Endpoint, node: Node | None) -> None:
        """Take news that a member of another cluster is alive: nothing but that it is not to be listened to."""
        self.counters.of_other_clusters += 1
        if node is not None and node.endpoint == endpoint and news.incarnation > node.incarnation and not node.is_gone:
            # Newer than what made it a member here: its machine was given away, or it was told another cluster.
            self._given_away(node, news.incarnation, f"incarnation {news.incarnation} says so")
        self.note_foreigner(news.node, endpoint, news.meta)

    def note_foreigner(self, name: str, endpoint: Endpoint, meta: bytes) -> None:
        """Take note of a member of another cluster, by hearsay: what is known of a member of this one counts more."""
        at_its_place = self._by_endpoint.get(endpoint)
        if endpoint == self.me.endpoint or (at_its_place is not None and not at_its_place.is_gone):
            return
        now = self.timers.now
        if name not in self.nodes:
            self.foreigners.note_name(name, now)
        if self.foreigners.note(endpoint, now):
            self.notify(Foreign(name, endpoint, meta))

    def found_foreigner(self, name: str, endpoint: Endpoint, meta: bytes) -> None:
        """Take note of a member of another cluster that has answered at an endpoint itself: nobody else is there."""
        node = self._by_endpoint.get(endpoint)
        if node is not None and node is not self.me and not node.is_gone:
            self._given_away(node, node.incarnation, f"{name} answers at {endpoint}")
        self.note_foreigner(name, endpoint, meta)

    def is_elsewhere(self, endpoint: Endpoint) -> bool:
        """Tell whether a member of another cluster was heard of at an endpoint lately."""
        return bool(self.foreigners) and self.foreigners.is_at(endpoint, self.timers.now)

    def _given_away(self, node: Node, incarnation: int, reason: str) -> None:
        self._end_suspicion(node.name)
        news = Dead(incarnation=incarnation, node=node.name, from_node=self.me.name)
        self._declare(news, node, Cause.CLUSTER, f"it is of another cluster: {reason}")

    # -- suspect -------------------------------------------------------------------------------------------------------

    def suspect(self, news: Suspect) -> None:
        """Take news that a member does not answer, from a member that has found so."""
        self._suspect(news, {news.from_node}, told=True)

    def suspect_by_hearsay(self, news: Suspect, *, told: bool) -> None:
        """Take it from a table that another member sent in a push/pull: who found so, that does not say.

        It begins a suspicion, and confirms none: it may be the very one that runs here, come by another way, and only
        what is found independently shortens a suspicion (Lifeguard, section IV.B).

        Args:
            news: from this node, as it can name nobody else.
            told: pass it on. To those who suspect the member already, this node is one more that does.
        """
        if news.node not in self._suspicions:
            self._suspect(news, set(), told=told)

    def _suspect(self, news: Suspect, accusers: set[str], *, told: bool) -> None:
        node = self.nodes.get(news.node)
        if node is None or news.incarnation < node.incarnation:
            return
        running = self._suspicions.get(news.node)
        if running is not None:
            if running.suspicion.confirm(news.from_node):
                self.broadcasts.add(encode_message(news), news.node)
                self._set_suspicion_timer(node, running.suspicion)
            return
        if node.is_gone:
            return
        # One that is suspected without a timer, since something failed before that was set, is suspected anew.
        if node is self.me:
            self._refute(news.incarnation)
            return
        self.counters.suspected += 1
        if told:
            self.broadcasts.add(encode_message(news), news.node)
        node.incarnation = news.incarnation
        reason = f"{news.from_node} suspects incarnation {news.incarnation}"
        self._change(node, NodeStatus.SUSPECT, Cause.INCARNATION, reason)
        self._set_suspicion_timer(node, self._begin_suspicion(accusers))

    def _begin_suspicion(self, accusers: set[str]) -> Suspicion:
        profile = self.profile
        wanted = profile.suspicion_multiplier - 2
        if self.known - 2 < wanted:
            wanted = 0
        shortest = shortest_suspicion(profile.suspicion_multiplier, self.known, profile.probe_interval)
        longest = profile.suspicion_maximum_multiplier * shortest
        return Suspicion(self.timers.now, shortest, longest, wanted, accusers)

    def _set_suspicion_timer(self, node: Node, suspicion: Suspicion) -> None:
        self._end_suspicion(node.name)

        def expired() -> None:
            self.counters.declared_dead += 1
            self._end_suspicion(node.name)
            self._declare(
                Dead(incarnation=node.incarnation, node=node.name, from_node=self.me.name),
                node,
                Cause.TIMER,
                "its suspicion expired",
            )

        self._suspicions[node.name] = _Running(suspicion, self.timers.set(suspicion.deadline, expired))

    def suspect_anew(self) -> None:
        """Let every suspicion that runs begin again: this node could not hear whether it was refuted."""
        for name, running in list(self._suspicions.items()):
            running.suspicion.began = self.timers.now
            self._set_suspicion_timer(self.nodes[name], running.suspicion)

    def _end_suspicion(self, name: str) -> None:
        running = self._suspicions.pop(name, None)
        if running is not None:
            running.timer.cancel()

    # -- dead and left -------------------------------------------------------------------------------------------------

    def dead(self, news: Dead, finished: Callable[[], None] | None = None) -> None:
        """Take news that a member is dead, or, if it says so itself, has left."""
        node = self.nodes.get(news.node)
        if node is None or news.incarnation < node.incarnation or node.is_gone:
            return
        self._end_suspicion(news.node)
        if node is self.me and not self.leaving:
            self._refute(news.incarnation)
            return
        reason = "it left" if news.from_node == news.node else f"{news.from_node} says so"
        self._declare(news, node, Cause.INCARNATION, reason, finished)

    def _declare(
        self, news: Dead, node: Node, cause: Cause, reason: str, finished: Callable[[], None] | None = None
    ) -> None:
        left = news.from_node == news.node
        node.incarnation = news.incarnation
        self._change(node, NodeStatus.LEFT if left else NodeStatus.DEAD, cause, reason)
        self.notify(Gone(news.node, left))
        self.broadcasts.add(encode_message(news), news.node, finished)

    def leave(self, finished: Callable[[], None]) -> None:
        """Say that this node leaves; finished is called when everybody was told, as far as gossip tells."""
        self.leaving = True
        self.dead(Dead(incarnation=self.me.incarnation, node=self.me.name, from_node=self.me.name), finished)

    # -- this node itself ----------------------------------------------------------------------------------------------

    def _raise_incarnation(self, above: int = 0) -> int:
        # It stays at the highest: a larger one is none on the wire, and only a hostile member gets it there.
        self._incarnation = min(max(self._incarnation, above) + 1, HIGHEST_INCARNATION)
        return self._incarnation

    def outlive(self, incarnation: int) -> None:
        """Be newer than what is known of an earlier life of this node, before start or after it."""
        self.me.incarnation = self._raise_incarnation(incarnation)
        if self.me.name in self.nodes:
            self.broadcast_me()

    def _refute(self, accused: int) -> None:
        """Say, louder than the accusation, that this node is alive."""
        self.counters.refuted += 1
        self.me.incarnation = self._raise_incarnation(accused)
        self.awareness.change(+1)
        self.broadcast_me()

    # -- the table -----------------------------------------------------------------------------------------------------

    def _add(self, node: Node) -> None:
        self.nodes[node.name] = node
        self.versions.add(node.version)
        self._node_bytes += _size(node.name, node.meta)
        # At a random place, so that a new member is probed neither first nor last by everybody.
        self.order.insert(self.rng.randint(0, len(self.order)), node.name)

    def _make_room(self, news: Alive) -> bool:
        """Tell whether there is room for a new member; who never answered, and is gone or suspected, makes some."""
        size = _size(news.node, news.meta)
        while len(self.nodes) >= MAX_NODES or self._node_bytes + size > MAX_NODE_BYTES:
            if self._silent is None:
                self._silent = deque(
                    node
                    for status in (NodeStatus.DEAD, NodeStatus.LEFT, NodeStatus.SUSPECT)
                    for node in self.nodes.values()
                    if node.status is status and not node.has_answered and node is not self.me
                )
                self.timers.after(self.profile.probe_interval, self._look_for_silent)
            while self._silent:
                node = self._silent.popleft()
                if self.nodes.get(node.name) is node and node.status is not NodeStatus.ALIVE and not node.has_answered:
                    break
            else:
                return False
            self._end_suspicion(node.name)
            if not node.is_gone:
                self._change(node, NodeStatus.DEAD, Cause.ROOM, "it never answered, and there is no room")
                self.notify(Gone(node.name, left=False))
            self._remove([node])
        return True

    def _look_for_silent(self) -> None:
        # Looking through all of them costs milliseconds: once an interval, however many new ones are heard of.
        self._silent = None

    def _leave_endpoint(self, node: Node) -> None:
        if self._by_endpoint.get(node.endpoint) is node:
            del self._by_endpoint[node.endpoint]

    def forget_dead(self) -> None:
        """Forget members that have been gone for long: their names are free again."""
        limit = self.timers.now - self.profile.gossip_to_the_dead
        forgotten = [
            node
            for node in self.nodes.values()
            if node.status >= NodeStatus.DEAD and node.changed <= limit and node is not self.me
        ]
        if forgotten:
            self._remove(forgotten)

    def _remove(self, forgotten: list[Node]) -> None:
        for node in forgotten:
            del self.nodes[node.name]
            self._leave_endpoint(node)
            self.versions.remove(node.version)
            self._node_bytes -= _size(node.name, node.meta)
        # Once for all of them: many that die together are forgotten together.
        self.order = [name for name in self.order if name in self.nodes]

    def _change(self, node: Node, status: NodeStatus, cause: Cause, reason: str, *, is_new: bool = False) -> None:
        before = None if is_new else node.status
        self.notify(StatusChange(node.name, before, status, node.incarnation, cause, reason))
        node.status = status
        node.changed = self.timers.now

    def choose(self, count: int, wanted: Callable[[Node], bool]) -> list[Node]:
        """Return up to count random members for which wanted is true."""
        chosen: dict[str, Node] = {}
        # A few of many are found sooner by looking at random ones than by looking at all.
        for _ in range(TRIES_PER_CHOICE * count if len(self.order) > TRIES_PER_CHOICE * count else 0):
            node = self.nodes[self.order[int(self.rng.random() * len(self.order))]]
            if node.name not in chosen and wanted(node):
                chosen[node.name] = node
                if len(chosen) == count:
                    return list(chosen.values())
        candidates = [node for node in self.nodes.values() if node.name not in chosen and wanted(node)]
        return [*chosen.values(), *self.rng.sample(candidates, min(count - len(chosen), len(candidates)))]


def _size(name: str, meta: bytes) -> int:
    return len(name) + len(meta)
