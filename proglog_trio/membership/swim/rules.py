"""The rules of SWIM: what news of a member changes, and what is passed on.

Incarnations decide which of two pieces of news is newer. Only a member itself raises its incarnation, and it does so to
refute: a member that can still speak is never dead for long. At equal incarnations suspect overrides alive, and dead
overrides both (SWIM, section 4.2; memberlist differs in that addresses are part of a member and a conflict keeps the
older one).
"""

from __future__ import annotations

import random
from collections.abc import Callable

from attrs import define, field

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.admission import Admission, not_allowed
from proglog_trio.membership.swim.awareness import Awareness
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.counters import Counters
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
from proglog_trio.membership.swim.node_table import NodeTable
from proglog_trio.membership.swim.suspicion import Suspicions
from proglog_trio.membership.swim.timers import Timers
from proglog_trio.membership.swim.versions import is_sound
from proglog_trio.membership.wire.memberlist import Alive, Dead, Suspect, encode_message

HIGHEST_INCARNATION = 2**32 - 1

IsLaterLife = Callable[[bytes, bytes], bool]


def never_a_later_life(_before: bytes, _now: bytes) -> bool:
    """Return False: nothing tells that two members of one name are the same one, as for memberlist."""
    return False


@define(eq=False)
class Rules:
    """Who is known, and what news of them does.

    What holds between two calls: a member that is SUSPECT has a suspicion that runs, and no other has one; this node is
    ALIVE until it leaves; a member's incarnation never falls, but for one that is back at another address.

    Attributes:
        me: this node itself; it is in the table once it has started.
        profile, rng, timers: of the core; other parts use them from here.
        broadcasts: SWIM's own; what is passed on goes in here.
        awareness: this node's health; a wrong accusation makes it worse.
        notify: called with each piece of news.
        foreigners: the members of other clusters, which are not known here.
        is_later_life: tells by two metas whether a member that claims the name of one that has failed is the same one,
            started again. memberlist has no such rule: there the name is held until the failed one is forgotten.
        admission: says who may be a member.
        table: the members that are known.
        leaving: this node is leaving: it does not refute its own death. Never False again once it is True.
        counters: see Counters.
    """

    me: Node
    profile: GossipProfile
    rng: random.Random
    timers: Timers
    broadcasts: BroadcastQueue
    awareness: Awareness
    notify: Callable[[Notification], None]
    foreigners: Foreigners = field(factory=Foreigners)
    is_later_life: IsLaterLife = never_a_later_life
    admission: Admission = field(factory=Admission)
    leaving: bool = False
    counters: Counters = field(factory=Counters)
    table: NodeTable = field(init=False)
    _suspicions: Suspicions = field(init=False)
    # The highest that this node ever had, or had to be above; me.incarnation is raised from here alone.
    _incarnation: int = 0

    def __attrs_post_init__(self) -> None:
        self.table = NodeTable(self.me, self.profile, self.rng, self.timers)
        self._suspicions = Suspicions(self.profile, self.timers, self._suspicion_expired)

    @property
    def nodes(self) -> dict[str, Node]:
        """The members that are known, by name."""
        return self.table.nodes

    def start(self) -> None:
        """Say that this node is alive."""
        self._incarnation = max(self._incarnation, self.me.incarnation)
        self.me.incarnation = self._raise_incarnation()
        self.table.add(self.me)
        self.broadcast_me()
        self._change(self.me, NodeStatus.ALIVE, Cause.OWN, "it is this node", is_new=True)
        self.notify(Seen(self.me.name))

    def move_me(self, endpoint: Endpoint) -> None:
        """Be at another endpoint than the core was made with; before start only, while nobody knows of this node."""
        if self.me.name in self.nodes:
            raise ValueError("this node is known at its endpoint already")
        self.me.endpoint, self.me.told_address = endpoint, endpoint.address

    @property
    def known(self) -> int:
        """How many members are known, the dead among them: what memberlist takes for the cluster's size."""
        return max(1, len(self.nodes))

    def broadcast_me(self, finished: Callable[[], None] | None = None) -> None:
        """Gossip this node's own state to all members."""
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

        The refutation has missed that member, and is gossiped no more once all members should have it. Such a member
        would call this node dead although its probes are acknowledged.
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
        """Gossip this node's new meta; before start no member is told of the node at all."""
        self.table.set_meta(self.me, meta)
        if self.me.name not in self.nodes:
            return
        self.me.incarnation = self._raise_incarnation()
        self.broadcast_me(finished)
        self.notify(Changed(self.me.name))

    # -- alive ---------------------------------------------------------------------------------------------------------

    def alive(self, news: Alive) -> None:
        """Change what is known by the news that a member is alive, and pass it on if it was news.

        The order of the checks is what makes it safe to hear anything from any member: a version that agents ignore, an
        address that no member may have, a member of another cluster, a name that is held at another address, an old
        incarnation, one that may not be a member and a full table each end it before anything is changed.
        """
        if self._is_known(news):
            return
        endpoint = Endpoint(news.addr, news.port)
        mine = news.node == self.me.name
        if mine and self.leaving:
            return
        if not is_sound(news.vsn):
            self.counters.incompatible += 1
            return
        if not self.admission.allows(endpoint.address):
            self._not_admitted(news, endpoint, not_allowed(endpoint.host))
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
        # Equal is old for what is alive, since suspect and dead override it. A member that moved is another life, whose
        # incarnations begin anew.
        if node is not None and news.incarnation <= node.incarnation and not moved:
            return
        if node is None or node.is_gone or moved:
            refusal = self.admission.judge(news.node, endpoint, news.meta)
            if refusal is not None:
                self._not_admitted(news, endpoint, refusal)
                return
        if not self.table.versions.fit(news.vsn, None if node is None else node.version):
            self.counters.incompatible += 1
            return
        if node is None:
            if not self._make_room(news):
                self.counters.beyond_limit += 1
                return
            # As if it had been dead, so that what follows is the same for a new member and for one that comes back.
            node = Node(news.node, endpoint, b"", news.vsn, 0, NodeStatus.DEAD, self.timers.now)
            self.table.add(node)
            is_new = True
        else:
            is_new = False
        self._suspicions.end(news.node)
        self.broadcasts.add(encode_message(news), news.node)
        changed = node.meta != news.meta
        self.table.set_meta(node, news.meta)
        self.table.set_version(node, news.vsn)
        self.table.set_endpoint(node, endpoint)
        self.foreigners.welcome(news.node, endpoint)
        node.told_address = news.addr
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

    def _is_known(self, news: Alive) -> bool:
        """Tell whether news says of another member what is known already: most does, as it comes from several.

        It would pass all the checks up to that of the incarnation, as it did when it came first.
        """
        node = self.nodes.get(news.node)
        return (
            node is not None
            and news.incarnation <= node.incarnation
            and news.meta == node.meta
            and news.addr == node.told_address
            and news.port == node.endpoint.port
            and news.vsn == node.version
            and node is not self.me
        )

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
        # An earlier life of this node, with other tags or a higher incarnation, is what others take for it.
        self._refute(news.incarnation)

    # -- other clusters ------------------------------------------------------------------------------------------------

    def is_foreign(self, name: str, meta: bytes) -> bool:
        """Tell whether a member of a name and with a meta is of another cluster."""
        known = self.nodes.get(name)
        if known is not None and known.meta == meta:
            return False
        return self.foreigners.belonging(meta) is Belonging.ELSEWHERE

    def _alive_elsewhere(self, news: Alive, endpoint: Endpoint, node: Node | None) -> None:
        """Note that a member of another cluster is alive: only that it is not to be listened to."""
        self.counters.of_other_clusters += 1
        if node is not None and node.endpoint == endpoint and news.incarnation > node.incarnation and not node.is_gone:
            # Newer than what made it a member here: its machine was given away, or it was told another cluster.
            self._given_away(node, news.incarnation, f"incarnation {news.incarnation} says so")
        self.note_foreigner(news.node, endpoint, news.meta)

    def _not_admitted(self, news: Alive, endpoint: Endpoint, refusal: str) -> None:
        """Note one that may not be a member, as if it were of another cluster: it is not to be listened to either."""
        self.counters.not_admitted += 1
        self.note_foreigner(news.node, endpoint, news.meta, refusal)

    def note_foreigner(self, name: str, endpoint: Endpoint, meta: bytes, refusal: str | None = None) -> None:
        """Note a member of another cluster, by hearsay: what is known of a member of this one counts more."""
        if endpoint == self.me.endpoint or self.table.at(endpoint) is not None:
            return
        now = self.timers.now
        if name not in self.nodes:
            self.foreigners.note_name(name, now)
        if self.foreigners.note(endpoint, now):
            self.notify(Foreign(name, endpoint, meta, refusal))

    def found_foreigner(self, name: str, endpoint: Endpoint, meta: bytes) -> None:
        """Note a member of another cluster that has answered at an endpoint itself: no other member is there."""
        node = self.table.at(endpoint)
        if node is not None:
            self._given_away(node, node.incarnation, f"{name} answers at {endpoint}")
        self.note_foreigner(name, endpoint, meta)

    def is_elsewhere(self, endpoint: Endpoint) -> bool:
        """Tell whether no member is at an endpoint: one of another cluster was heard of there, or none may be there."""
        if not self.admission.allows(endpoint.address):
            return True
        return bool(self.foreigners) and self.foreigners.is_at(endpoint, self.timers.now)

    def _given_away(self, node: Node, incarnation: int, reason: str) -> None:
        self._suspicions.end(node.name)
        news = Dead(incarnation=incarnation, node=node.name, from_node=self.me.name)
        self._declare(news, node, Cause.CLUSTER, f"it is of another cluster: {reason}")

    # -- suspect -------------------------------------------------------------------------------------------------------

    def suspect(self, news: Suspect) -> None:
        """Suspect a member that does not answer, as a member says that has found so itself."""
        self._suspect(news, {news.from_node}, told=True)

    def suspect_by_hearsay(self, news: Suspect, *, told: bool) -> None:
        """Suspect a member by the table that another sent in a push/pull, which does not say who found so.

        It begins a suspicion, and confirms none: it may be the very one that runs here, come by another way, and only
        what is found independently shortens a suspicion (Lifeguard, section IV.B).

        Args:
            news: from this node, as it can name no other.
            told: pass it on. To those who suspect the member already, this node is one more that does.
        """
        if news.node not in self._suspicions:
            self._suspect(news, set(), told=told)

    def _suspect(self, news: Suspect, accusers: set[str], *, told: bool) -> None:
        node = self.nodes.get(news.node)
        if node is None or news.incarnation < node.incarnation:
            return
        if news.node in self._suspicions:
            if self._suspicions.confirm(news.node, news.from_node):
                self.broadcasts.add(encode_message(news), news.node)
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
        self._suspicions.begin(node.name, accusers, self.known)

    def _suspicion_expired(self, name: str) -> None:
        self.counters.declared_dead += 1
        node = self.nodes[name]
        news = Dead(incarnation=node.incarnation, node=name, from_node=self.me.name)
        self._declare(news, node, Cause.TIMER, "its suspicion expired")

    def suspect_anew(self) -> None:
        """Let every suspicion that runs begin again: this node could not hear whether it was refuted."""
        self._suspicions.begin_anew()

    # -- dead and left -------------------------------------------------------------------------------------------------

    def dead(self, news: Dead, finished: Callable[[], None] | None = None) -> None:
        """Change what is known by the news that a member is dead, or, if it says so itself, has left."""
        node = self.nodes.get(news.node)
        # At equal incarnations the accusation counts: the accused alone can say more, by raising its incarnation.
        if node is None or news.incarnation < node.incarnation or node.is_gone:
            return
        self._suspicions.end(news.node)
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
        """Say that this node leaves; finished is called when it was sent as often as gossip sends news."""
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

    def _make_room(self, news: Alive) -> bool:
        """Tell whether there is room for a new member; one that never answered and is gone or suspected makes some."""
        while not self.table.has_room(news.node, news.meta):
            node = self.table.next_silent()
            if node is None:
                return False
            self._suspicions.end(node.name)
            if not node.is_gone:
                self._change(node, NodeStatus.DEAD, Cause.ROOM, "it never answered, and there is no room")
                self.notify(Gone(node.name, left=False))
            self.table.remove([node])
        return True

    def _change(self, node: Node, status: NodeStatus, cause: Cause, reason: str, *, is_new: bool = False) -> None:
        before = None if is_new else node.status
        self.notify(StatusChange(node.name, before, status, node.incarnation, cause, reason))
        node.status = status
        node.changed = self.timers.now
