"""The SWIM core: packets, streams and time go in; packets, streams and news come out. It does none of it itself.

```
Swim         gossip, push/pull, and who gets what arrives
├── Rules    what news of a member changes (rules.py)
└── Prober   is each member still there (prober.py)
```
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

from proglog_trio.internal_errors import Boundaries, Where, no_boundary
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.awareness import Awareness
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.effects import (
    Effect,
    ExchangeState,
    Notification,
    Paused,
    SendPacket,
    UserMessageReceived,
)
from proglog_trio.membership.swim.foreigners import MAX_FOREIGNERS, Belonging, Foreigners, Sender, unsaid
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.swim.prober import Prober
from proglog_trio.membership.swim.rules import Rules
from proglog_trio.membership.swim.timers import Timer, Timers, never
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Nack,
    NodeState,
    NodeStateType,
    Ping,
    Suspect,
    UserMessage,
)
from proglog_trio.steps import Steps, complete

COMPOUND_OVERHEAD_BYTES = 2
"""What a compound packet takes, and again each message in it."""
PUSH_PULL_SCALE_THRESHOLD = 32
STATES_AT_ONCE = 64
STATES_MERGED_AT_ONCE = 4
"""In one step of making a state, and of merging one; each may bring a member with tags, news to pass on and a timer."""
MAX_ANSWERS = 32
"""How many members that accuse this one are answered in one gossip interval, each once: an answer is larger."""
CHECKSUM_SINCE_PROTOCOL = 5
CHECKSUM_BYTES = 5
VERSION = bytes((1, 5, 2, 2, 5, 4))
"""Protocol and delegate versions: lowest, highest, current."""


class OtherCluster(Exception):
    """A state is of another cluster: nothing of it was taken, and nothing may be told to those who sent it.

    Attributes:
        state: a member of that cluster.
    """

    def __init__(self, state: NodeState) -> None:
        super().__init__(f"{state.name} is of another cluster")
        self.state = state


def push_pull_scale(members: int) -> int:
    """Return how much longer the push/pull interval is in a cluster of so many members."""
    if members <= PUSH_PULL_SCALE_THRESHOLD:
        return 1
    return math.ceil(math.log2(members) - math.log2(PUSH_PULL_SCALE_THRESHOLD)) + 1


@define(eq=False)
class Swim:
    """One member of a gossip cluster.

    Attributes:
        rules: who is known.
        prober: see prober.py.
        queues: the layer above has broadcasts of its own here, sent after SWIM's, in this order.
        overhead_bytes: what encryption and label take of each packet.
        effects: what is to be done; whoever does it empties it.
        boundaries: what each message and each piece of news is taken in, so that one that fails is the only one.
    """

    rules: Rules
    prober: Prober
    queues: list[BroadcastQueue]
    effects: list[Effect]
    overhead_bytes: int = 0
    boundaries: Boundaries = no_boundary
    _exchange_at_once: Timer | None = None
    _answered: set[Endpoint] = field(factory=set)
    _answers_end: float = 0.0

    @classmethod
    def make(
        cls,
        name: str,
        endpoint: Endpoint,
        profile: GossipProfile,
        rng: random.Random,
        notify: Callable[[Notification], None],
        *,
        now: float,
        meta: bytes = b"",
        version: bytes = VERSION,
        overhead_bytes: int = 0,
        belonging: Callable[[bytes], Belonging] = unsaid,
    ) -> Swim:
        """Return a core that does nothing before start.

        Args:
            name: this node's, unique in the cluster.
            endpoint: what the others send to.
            profile: the timing.
            rng: decides whom to probe and to gossip to.
            notify: called with each piece of news.
            now: the time in seconds; any clock that never goes back.
            meta: what is told of this node besides, 512 bytes at most.
            version: see VERSION.
            overhead_bytes: what encryption and label take of each packet.
            belonging: says of a member's meta where it belongs; members of other clusters are not merged.
        """
        me = Node(name, endpoint, meta, version, 0, NodeStatus.ALIVE, now)
        broadcasts = BroadcastQueue(profile.retransmit_multiplier)
        patience = profile.probe_timeout / 2
        timers = Timers(now, patience, grace=patience)
        rules = Rules(me, profile, rng, timers, broadcasts, Awareness(profile.awareness_maximum), notify)
        rules.foreigners = Foreigners(belonging)
        effects: list[Effect] = []
        # The two need each other: the prober sends through the core, which adds broadcasts to what it sends.
        prober = Prober(rules, effects.append, _unset)
        swim = cls(rules, prober, [broadcasts], effects, overhead_bytes)
        prober.send = swim.send
        return swim

    # -- time ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to probe, to gossip and to exchange states."""
        rules, profile = self.rules, self.rules.profile
        rules.start()
        self.prober.start()
        rules.timers.after(rules.rng.random() * profile.gossip_interval, self._gossip)
        if profile.push_pull_interval:
            rules.timers.after(rules.rng.random() * self._push_pull_interval(), self._push_pull)

    @property
    def next_deadline(self) -> float | None:
        """When advance should be called next."""
        return self.rules.timers.next_deadline

    def advance(self, now: float, enough: Callable[[], bool] = never) -> None:
        """Say what time it is; do this before anything else that has happened then.

        If this comes so late that the process must have been stopped, nothing is judged by the time that has passed
        meanwhile: see Timers.

        Args:
            now: the time.
            enough: see Timers.advance.
        """
        paused = self.rules.timers.advance(now, enough)
        if paused:
            self._resumed(paused)

    def _resumed(self, seconds: float) -> None:
        """Go on after this process was stopped: this node's own health is in doubt, and not the others'."""
        rules, profile = self.rules, self.rules.profile
        rules.counters.pauses += 1
        if seconds < profile.probe_interval:
            return
        rules.awareness.change(+1)
        rules.suspect_anew()
        rules.say_again()
        if profile.push_pull_interval and self._exchange_at_once is None:
            # What it missed it learns by this, after it has read what has arrived.
            self._exchange_at_once = rules.timers.after(rules.timers.grace, self._exchange_once)
        rules.notify(Paused(seconds))

    def _gossip(self) -> None:
        rules, profile = self.rules, self.rules.profile
        rules.timers.after(profile.gossip_interval, self._gossip)
        if not any(self.queues):
            return
        dead_since = rules.timers.now - profile.gossip_to_the_dead

        def wanted(node: Node) -> bool:
            if node is rules.me or node.status is NodeStatus.LEFT or rules.is_elsewhere(node.endpoint):
                return False
            return node.status is not NodeStatus.DEAD or node.changed > dead_since

        for node in rules.choose(profile.gossip_nodes, wanted):
            room = profile.packet_bytes - self.overhead_bytes - COMPOUND_OVERHEAD_BYTES - CHECKSUM_BYTES
            messages = self._broadcasts(room)
            if not messages:
                return
            self._emit(node.endpoint, messages, node)

    def _push_pull_interval(self) -> float:
        return self.rules.profile.push_pull_interval * push_pull_scale(self.rules.known)

    def _push_pull(self) -> None:
        self.rules.timers.after(self._push_pull_interval(), self._push_pull)
        self._exchange()

    def _exchange_once(self) -> None:
        self._exchange_at_once = None
        self._exchange()

    def _exchange(self) -> None:
        """Exchange states with some member."""
        rules = self.rules
        for node in rules.choose(1, lambda node: node is not rules.me and node.status is NodeStatus.ALIVE):
            self.effects.append(ExchangeState(node.endpoint, node.name))

    # -- sending -------------------------------------------------------------------------------------------------------

    @property
    def largest_broadcast(self) -> int:
        """How many bytes a broadcast may have to fit into a packet of its own."""
        return self.rules.profile.packet_bytes - self.overhead_bytes - 2 * COMPOUND_OVERHEAD_BYTES - CHECKSUM_BYTES

    def _broadcasts(self, limit: int) -> list[bytes]:
        """Return broadcasts for one packet with room for so many bytes."""
        messages: list[bytes] = []
        for queue in self.queues:
            taken = queue.take(self.rules.known, COMPOUND_OVERHEAD_BYTES, limit)
            limit -= sum(COMPOUND_OVERHEAD_BYTES + len(message) for message in taken)
            messages += taken
        return messages

    def send(self, target: Endpoint, message: bytes) -> None:
        """Send a message, with the broadcasts that fit beside it."""
        size = 2 * COMPOUND_OVERHEAD_BYTES + len(message) + CHECKSUM_BYTES
        if self.rules.is_elsewhere(target):
            self._emit(target, [message], None)
            return
        beside = self._broadcasts(self.rules.profile.packet_bytes - self.overhead_bytes - size)
        self._emit(target, [message, *beside], None)

    def _emit(self, target: Endpoint, messages: Sequence[bytes], node: Node | None) -> None:
        counters = self.rules.counters
        counters.packets_sent += 1
        counters.bytes_sent += sum(map(len, messages))
        checksum = node is not None and node.highest_protocol >= CHECKSUM_SINCE_PROTOCOL
        self.effects.append(SendPacket(target, tuple(messages), checksum))

    # -- what arrives --------------------------------------------------------------------------------------------------

    def receive(self, messages: Iterable[Message], source: Endpoint) -> None:
        """Take the messages of a packet."""
        boundary = self.boundaries(Where.GOSSIP_MESSAGE)
        for message in messages:
            with boundary:
                self._receive(message, source)

    def _receive(self, message: Message, source: Endpoint) -> None:
        rules, prober = self.rules, self.prober
        if rules.is_elsewhere(source) and not isinstance(message, Alive):
            # What it says of a member tells where that belongs; of all else nothing does.
            rules.counters.of_other_clusters += 1
            return
        match message:
            case Ping():
                prober.ping(message, source)
            case IndirectPing() if rules.is_elsewhere(Endpoint(message.target, message.port)):
                rules.counters.of_other_clusters += 1
            case IndirectPing():
                prober.indirect_ping(message, source)
            case Ack():
                prober.ack(message)
            case Nack():
                prober.nack(message)
            case Suspect():
                rules.suspect(message)
                self._answer(message, source)
            case Alive():
                rules.alive(message)
            case Dead():
                rules.dead(message)
                self._answer(message, source)
            case UserMessage():
                rules.notify(UserMessageReceived(message.payload, source))

    def _answer(self, accusation: Suspect | Dead, source: Endpoint) -> None:
        answer = self.rules.answer_to(accusation)
        if answer is None:
            return
        now = self.rules.timers.now
        if now >= self._answers_end:
            self._answered.clear()
            self._answers_end = now + self.rules.profile.gossip_interval
        if source not in self._answered and len(self._answered) < MAX_ANSWERS:
            self._answered.add(source)
            self.send(source, answer)

    def local_state(self) -> tuple[NodeState, ...]:
        """Return what is known of every member, for a push/pull."""
        return complete(self.local_state_steps())

    def local_state_steps(self) -> Steps[tuple[NodeState, ...]]:
        """Return, in steps, what is known of every member, for a push/pull."""
        states: list[NodeState] = []
        for node in list(self.rules.nodes.values()):
            states.append(
                NodeState(
                    name=node.name,
                    addr=node.told_address,
                    port=node.endpoint.port,
                    meta=node.meta,
                    incarnation=node.incarnation,
                    state=NodeStateType(node.status),
                    vsn=node.version,
                )
            )
            if len(states) % STATES_AT_ONCE == 0:
                yield
        return tuple(states)

    def judge_steps(self, states: Sequence[NodeState], sender: Sender) -> Steps[bool]:
        """Tell, in steps, whether a state has nothing of other clusters in it.

        It may have some of it and be told by a member of this cluster: a plain member may be one of both, or a member
        of an older version may have merged the other. It is of another cluster when the one who sent it is, as far as
        that is known, or when it has members of that alone.

        Raises:
            OtherCluster: it is of another cluster.
        """
        rules = self.rules
        has_foreign = has_ours = False
        there: list[NodeState] = []
        at_sender: dict[Belonging, NodeState] = {}
        for number, state in enumerate(states, 1):
            if number % STATES_MERGED_AT_ONCE == 0:
                yield
            belonging = rules.foreigners.belonging(state.meta)
            has_foreign |= belonging is Belonging.ELSEWHERE
            if not state.addr or state.state not in (NodeStateType.ALIVE, NodeStateType.SUSPECT):
                continue
            endpoint = Endpoint(state.addr, state.port)
            if endpoint == rules.me.endpoint:
                continue
            has_ours |= belonging is Belonging.HERE
            if belonging is Belonging.ELSEWHERE:
                there.append(state)
            if endpoint == sender.endpoint or endpoint.address == sender.address:
                at_sender[belonging] = state
        of_sender = at_sender.get(Belonging.ELSEWHERE) if len(at_sender) == 1 else None
        refused = of_sender if of_sender is not None else there[0] if there and not has_ours else None
        if refused is None:
            return not has_foreign
        rules.counters.of_other_clusters += 1
        for number, state in enumerate(there[:MAX_FOREIGNERS], 1):
            endpoint = Endpoint(state.addr, state.port)
            if endpoint == sender.endpoint:
                rules.found_foreigner(state.name, endpoint, state.meta)
            else:
                rules.note_foreigner(state.name, endpoint, state.meta)
            if number % STATES_MERGED_AT_ONCE == 0:
                yield
        raise OtherCluster(refused)

    def merge(self, states: Iterable[NodeState]) -> None:
        """Take what another member knows."""
        complete(self.merge_steps(states))

    def merge_steps(self, states: Iterable[NodeState]) -> Steps[None]:
        """Take what another member knows, in steps.

        Of the dead as of the suspect it is only taken that they are suspected, so that one who lives can refute.
        """
        boundary = self.boundaries(Where.GOSSIP_MESSAGE)
        for number, state in enumerate(states, 1):
            if number % STATES_MERGED_AT_ONCE == 0:
                yield
            if state.addr and state.name:  # otherwise it cannot be reached, so it cannot be a member
                with boundary:
                    self._merge_one(state)

    def _merge_one(self, state: NodeState) -> None:
        rules = self.rules
        if state.state is not NodeStateType.ALIVE and rules.is_foreign(state.name, state.meta):
            rules.counters.of_other_clusters += 1
            return
        suspicion = Suspect(incarnation=state.incarnation, node=state.name, from_node=rules.me.name)
        match state.state:
            case NodeStateType.ALIVE:
                rules.alive(
                    Alive(
                        incarnation=state.incarnation,
                        node=state.name,
                        addr=state.addr,
                        port=state.port,
                        meta=state.meta,
                        vsn=state.vsn,
                    )
                )
            case NodeStateType.LEFT:
                rules.dead(Dead(incarnation=state.incarnation, node=state.name, from_node=state.name))
            case NodeStateType.SUSPECT:
                # Who found so tells everybody; told by this node too, one finding would pass for two.
                rules.suspect_by_hearsay(suspicion, told=False)
            case _:
                rules.suspect_by_hearsay(suspicion, told=True)


def _unset(target: Endpoint, message: bytes) -> None:
    raise RuntimeError(f"{len(message)} bytes for {target} before the core was made")
