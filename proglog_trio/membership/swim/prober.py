"""Probing: is each member still there?

Each probe interval one member is pinged. If it does not answer within the probe timeout, others are asked to ping it,
and it is pinged through a stream, for networks that lose packets only. If by the end of the interval no answer came by
any of these ways it is suspected. The interval is longer while this node's own health is bad (SWIM, section 4.1;
Lifeguard, section IV.A).
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from proglog_trio.durations import remaining
from proglog_trio.membership.swim.effects import PingByStream, RoundTrip, SendPacket
from proglog_trio.membership.swim.node import Endpoint, Node, NodeStatus
from proglog_trio.membership.swim.outbox import Outbox
from proglog_trio.membership.swim.rules import Rules
from proglog_trio.membership.swim.timers import Timer
from proglog_trio.membership.wire.memberlist import Ack, IndirectPing, Nack, Ping, Suspect, encode_message

HIGHEST_SEQUENCE_NUMBER = 2**32 - 1
MAX_RELAYED_PINGS = 4096
"""Indirect pings for others that may be under way at once; more are ignored, and the members that asked see no nack."""
NACK_SINCE_PROTOCOL = 4
MAX_PASSED_OVER = 2048
"""Members that are gone and are passed over for one probe; after that the search goes on with the next interval."""


@define(eq=False)
class _Probe:
    """The probe that is under way.

    Attributes:
        node: whom.
        incarnation: the member's, when the probe began.
        sequence_number: of the ping.
        began: when, in seconds.
        pauses: how often this node had been stopped by then.
        nacks_wanted, nacks: how many of those that were asked should say that they got no answer, and how many did.
    """

    node: Node
    incarnation: int
    sequence_number: int
    began: float
    pauses: int
    timers: list[Timer] = field(factory=list)
    nacks_wanted: int = 0
    nacks: int = 0


@define(eq=False)
class _Relayed:
    """A ping on behalf of another member."""

    asker: Endpoint
    asker_sequence_number: int
    timer: Timer


@define(eq=False)
class Prober:
    """Probes members, and pings on behalf of others.

    Attributes:
        rules: knows the members.
        outbox: what is to be sent and done.
        ack_payload: what this node puts into its acks.
    """

    rules: Rules
    outbox: Outbox
    ack_payload: Callable[[], bytes] = bytes
    # One at a time: the next begins an interval after this one did, or when it has ended if that is later.
    _probe: _Probe | None = None
    # The timer of the next probe; None while a probe runs, which sets it when it ends.
    _following: Timer | None = None
    _relayed: dict[int, _Relayed] = field(factory=dict)
    _next_index: int = 0
    _sequence_number: int = 0

    def start(self) -> None:
        """Probe from now on, beginning at a random time within the interval."""
        timers = self.rules.timers
        timers.after(self.rules.rng.random() * self.rules.profile.probe_interval, self._tick)

    def _tick(self) -> None:
        # Before anything that may fail: whatever becomes of this probe, there is a next one.
        self._schedule(self.rules.timers.now)
        node = self._next_node()
        if node is not None:
            self._begin(node)
            self._unschedule()

    def _schedule(self, began: float) -> None:
        """Probe next an interval after this probe began; never is there more than one that is next."""
        self._unschedule()
        self._following = self.rules.timers.set(began + self.rules.profile.probe_interval, self._tick)

    def _unschedule(self) -> None:
        if self._following is not None:
            self._following.cancel()
            self._following = None

    def _next_node(self) -> Node | None:
        """Return the next member in the round that is to be probed; each round is in an order of its own."""
        rules = self.rules
        for _ in range(min(len(rules.table.order) + 1, MAX_PASSED_OVER)):
            if self._next_index >= len(rules.table.order):
                rules.table.forget_dead()
                self._next_index = 0
                if not rules.table.order:
                    return None
            # A round is shuffled as it goes (Fisher and Yates), not all of it when it begins.
            order, index = rules.table.order, self._next_index
            other = index + int(rules.rng.random() * (len(order) - index))
            order[index], order[other] = order[other], order[index]
            node = rules.nodes[order[index]]
            self._next_index += 1
            if node is not rules.me and not node.is_gone:
                return node
        return None

    def _next_sequence_number(self) -> int:
        self._sequence_number = self._sequence_number % HIGHEST_SEQUENCE_NUMBER + 1
        return self._sequence_number

    def ping_to(self, name: str, sequence_number: int) -> Ping:
        """Return a ping of a member; the answer has the same sequence number."""
        me = self.rules.me
        return Ping(
            seq_no=sequence_number,
            node=name,
            source_addr=me.endpoint.address,
            source_port=me.endpoint.port,
            source_node=me.name,
        )

    # -- a probe of our own --------------------------------------------------------------------------------------------

    def _begin(self, node: Node) -> None:
        rules, timers = self.rules, self.rules.timers
        rules.counters.probes += 1
        probe = self._probe = _Probe(node, node.incarnation, self._next_sequence_number(), timers.now, timers.pauses)
        ping = encode_message(self.ping_to(node.name, probe.sequence_number))
        if node.status is NodeStatus.ALIVE:
            self.outbox.send(node.endpoint, ping)
        else:
            # So that it hears of the suspicion with the ping, and can refute at once.
            suspect = Suspect(incarnation=node.incarnation, node=node.name, from_node=rules.me.name)
            packet = SendPacket(node.endpoint, (ping, encode_message(suspect)), node.highest_protocol >= 5)
            self.outbox.effects.append(packet)
        interval = rules.awareness.scale(rules.profile.probe_interval)
        probe.timers = [
            timers.after(rules.profile.probe_timeout, self._ask_others),
            timers.after(interval, self._fail),
        ]

    def _ask_others(self) -> None:
        probe, rules = self._probe, self.rules
        if probe is None:
            return
        node, me = probe.node, rules.me
        helpers = rules.table.choose(
            rules.profile.indirect_checks,
            lambda other: other is not me and other is not node and other.status is NodeStatus.ALIVE,
        )
        for helper in helpers:
            wants_nack = helper.highest_protocol >= NACK_SINCE_PROTOCOL
            probe.nacks_wanted += wants_nack
            request = IndirectPing(
                seq_no=probe.sequence_number,
                target=node.told_address,
                port=node.endpoint.port,
                node=node.name,
                nack=wants_nack,
                source_addr=me.endpoint.address,
                source_port=me.endpoint.port,
                source_node=me.name,
            )
            self.outbox.send(helper.endpoint, encode_message(request))
        rest = remaining(probe.timers[1].deadline, rules.timers.now)
        if rest:
            self.outbox.effects.append(PingByStream(node.endpoint, node.name, probe.sequence_number, rest))

    def _fail(self) -> None:
        probe, rules = self._probe, self.rules
        if probe is None:
            return
        self._end(probe)
        rules.counters.probes_failed += 1
        # Nacks that are missing say that this node hears badly; without any to expect, the failure itself does.
        rules.awareness.change(max(probe.nacks_wanted - probe.nacks, 0) if probe.nacks_wanted else 1)
        node = probe.node
        if rules.nodes.get(node.name) is node and not node.is_gone:
            # Of what the member said before the probe began: if it has refuted meanwhile, this is no news.
            rules.suspect(Suspect(incarnation=probe.incarnation, node=node.name, from_node=rules.me.name))

    def _succeed(self, probe: _Probe) -> None:
        probe.node.has_answered = True
        self._end(probe)
        self.rules.awareness.change(-1)

    def _end(self, probe: _Probe) -> None:
        for timer in probe.timers:
            timer.cancel()
        self._probe = None
        # The next probe begins an interval after this one did, or at once if this one took longer.
        self._schedule(probe.began)

    # -- what arrives --------------------------------------------------------------------------------------------------

    def ack(self, message: Ack) -> None:
        """Count an answer, to a probe of our own or to one that we relay."""
        probe = self._probe
        if probe is not None and message.seq_no == probe.sequence_number:
            took = self.rules.timers.now - probe.began
            # First: that it answers must count even if the rest of its answer cannot be read.
            self._succeed(probe)
            probe.node.by_stream_alone = 0
            # How long it took is not known if this node was stopped meanwhile.
            if took < self.rules.profile.probe_timeout and probe.pauses == self.rules.timers.pauses:
                self.rules.notify(RoundTrip(probe.node.name, took, message.payload))
            return
        relayed = self._relayed.pop(message.seq_no, None)
        if relayed is not None:
            relayed.timer.cancel()
            answer = Ack(seq_no=relayed.asker_sequence_number, payload=b"")
            self.outbox.send(relayed.asker, encode_message(answer))

    def nack(self, message: Nack) -> None:
        """Count that a member that was asked got no answer."""
        probe = self._probe
        if probe is not None and message.seq_no == probe.sequence_number:
            probe.nacks += 1

    def stream_ping_ended(self, sequence_number: int, *, answered: bool) -> None:
        """End a probe whose ping by stream was answered."""
        probe = self._probe
        if answered and probe is not None and sequence_number == probe.sequence_number:
            probe.node.by_stream_alone += 1
            self._succeed(probe)

    def ping(self, message: Ping, source: Endpoint | None) -> Ack | None:
        """Return the answer to a ping, or None if it is not for this node; by packet it is sent as well."""
        if message.node and message.node != self.rules.me.name:
            return None
        answer = Ack(seq_no=message.seq_no, payload=self.ack_payload())
        if source is not None:
            target = source
            if message.source_addr and message.source_port:
                target = Endpoint(message.source_addr, message.source_port)
            self.outbox.send(target, encode_message(answer))
        return answer

    def indirect_ping(self, message: IndirectPing, source: Endpoint) -> None:
        """Ping on behalf of another."""
        if len(self._relayed) >= MAX_RELAYED_PINGS:
            return
        asker = source
        if message.source_addr and message.source_port:
            asker = Endpoint(message.source_addr, message.source_port)
        sequence_number = self._next_sequence_number()

        def expired() -> None:
            self._relayed.pop(sequence_number, None)
            if message.nack:
                self.outbox.send(asker, encode_message(Nack(seq_no=message.seq_no)))

        timer = self.rules.timers.after(self.rules.profile.probe_timeout, expired)
        self._relayed[sequence_number] = _Relayed(asker, message.seq_no, timer)
        ping = self.ping_to(message.node, sequence_number)
        self.outbox.send(Endpoint(message.target, message.port), encode_message(ping))
