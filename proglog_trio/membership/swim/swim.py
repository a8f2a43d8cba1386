"""The SWIM core: packets, streams and time go in; packets, streams and news come out. It does none of it itself.

```
Swim         gossip, push/pull, and who gets what arrives
├── Rules    what news of a member changes (rules.py), of those in the table (node_table.py)
├── Prober   is each member still there (prober.py)
├── States   what push/pulls say of all members (states.py)
└── Outbox   what is to be sent and done (outbox.py)
```
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence

from proglog_trio.internal_errors import Boundaries, Where, no_boundary
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.swim.admission import Admission
from proglog_trio.membership.swim.awareness import Awareness
from proglog_trio.membership.swim.broadcasts import BroadcastQueue
from proglog_trio.membership.swim.effects import (
    Effect,
    ExchangeState,
    Notification,
    Paused,
    UserMessageReceived,
)
from proglog_trio.membership.swim.foreigners import Belonging, Foreigners, unsaid
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.swim.outbox import Outbox
from proglog_trio.membership.swim.prober import Prober
from proglog_trio.membership.swim.rules import IsLaterLife, Rules, never_a_later_life
from proglog_trio.membership.swim.states import States
from proglog_trio.membership.swim.timers import Timer, Timers, never
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Nack,
    Ping,
    Suspect,
    UserMessage,
)

PUSH_PULL_SCALE_THRESHOLD = 32
MAX_ANSWERS = 32
"""How many members that accuse this one are answered in one gossip interval, each once: an answer is larger."""
VERSION = bytes((1, 5, 2, 2, 5, 4))
"""Protocol and delegate versions: lowest, highest, current."""


def push_pull_scale(members: int) -> int:
    """Return how much longer the push/pull interval is in a cluster of so many members."""
    if members <= PUSH_PULL_SCALE_THRESHOLD:
        return 1
    return math.ceil(math.log2(members) - math.log2(PUSH_PULL_SCALE_THRESHOLD)) + 1


class Swim:
    """One member of a gossip cluster.

    Attributes:
        rules: who is known.
        outbox: what is to be done, and how it is sent.
        prober: see prober.py.
        states: what push/pulls say.
        boundaries: what each message and each piece of news is worked on in, so that one that fails is the only one.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        profile: GossipProfile,
        rng: random.Random,
        notify: Callable[[Notification], None],
        *,
        now: float,
        meta: bytes = b"",
        overhead_bytes: int = 0,
        queues: Sequence[BroadcastQueue] = (),
        ack_payload: Callable[[], bytes] = bytes,
        belonging: Callable[[bytes], Belonging] = unsaid,
        is_later_life: IsLaterLife = never_a_later_life,
        admission: Admission | None = None,
        boundaries: Boundaries = no_boundary,
    ) -> None:
        """Make a core that does nothing before start.

        Args:
            name: this node's, unique in the cluster.
            endpoint: what the others send to.
            profile: the timing.
            rng: decides whom to probe and to gossip to.
            notify: called with each piece of news.
            now: the time in seconds; any clock that never goes back.
            meta: what is told of this node besides, 512 bytes at most.
            overhead_bytes: what encryption and label take of each packet.
            queues: broadcasts of the layer above, sent after SWIM's, in this order.
            ack_payload: what this node puts into its acks.
            belonging: says of a member's meta where it belongs; members of other clusters are not merged.
            is_later_life: see Rules.
            admission: says who may be a member; None: everybody may.
            boundaries: what each timer, message and piece of news is worked on in.
        """
        me = Node(name, endpoint, meta, VERSION, 0, NodeStatus.ALIVE, now)
        broadcasts = BroadcastQueue(profile.retransmit_multiplier)
        patience = profile.probe_timeout / 2
        timers = Timers(now, patience, patience, lambda: boundaries(Where.GOSSIP_TIMER))
        awareness, foreigners = Awareness(profile.awareness_maximum), Foreigners(belonging)
        self.rules = Rules(
            me, profile, rng, timers, broadcasts, awareness, notify, foreigners, is_later_life, admission or Admission()
        )
        self.outbox = Outbox(self.rules, (broadcasts, *queues), overhead_bytes)
        self.prober = Prober(self.rules, self.outbox, ack_payload)
        self.states, self.boundaries = States(self.rules, boundaries), boundaries
        # Set while an exchange that makes up for a pause is due: several pauses in a row make one.
        self._exchange_at_once: Timer | None = None
        # Who was answered in the gossip interval that ends at _answers_end; no more than MAX_ANSWERS.
        self._answered = set[Endpoint]()
        self._answers_end = 0.0

    @property
    def name(self) -> str:
        """This node's name."""
        return self.rules.me.name

    @property
    def now(self) -> float:
        """The time in seconds, as the core knows it: without the pauses of this process."""
        return self.rules.timers.now

    @property
    def effects(self) -> list[Effect]:
        """What is to be done: see Outbox."""
        return self.outbox.effects

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
        if not any(self.outbox.queues):
            return
        dead_since = rules.timers.now - profile.gossip_to_the_dead

        def wanted(node: Node) -> bool:
            if node is rules.me or node.status is NodeStatus.LEFT or rules.is_elsewhere(node.endpoint):
                return False
            return node.status is not NodeStatus.DEAD or node.changed > dead_since

        for node in rules.table.choose(profile.gossip_nodes, wanted):
            if not self.outbox.gossip(node):
                return

    def _push_pull_interval(self) -> float:
        return self.rules.profile.push_pull_interval * push_pull_scale(self.rules.known)

    def _push_pull(self) -> None:
        self.rules.timers.after(self._push_pull_interval(), self._push_pull)
        self._exchange()

    def _exchange_once(self) -> None:
        self._exchange_at_once = None
        self._exchange()

    def _exchange(self) -> None:
        """Exchange states with a random member."""
        rules = self.rules
        for node in rules.table.choose(1, lambda node: node is not rules.me and node.status is NodeStatus.ALIVE):
            self.effects.append(ExchangeState(node.endpoint, node.name))

    # -- what arrives --------------------------------------------------------------------------------------------------

    def receive(self, messages: Iterable[Message], source: Endpoint) -> None:
        """Work on the messages of a packet, each by itself."""
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
            self.outbox.send(source, answer)
