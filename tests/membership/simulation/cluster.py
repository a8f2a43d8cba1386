"""A cluster of cores in memory: nodes join, crash, come back, stop for a while, leave; and everything is recorded."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from attrs import define, field, frozen

from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.clusters import ClusterTag, StateRefused
from proglog_trio.membership.serf.member import MemberEvent, MemberStatus
from proglog_trio.membership.serf.serf import CoreEvent, HasLeft, Serf
from proglog_trio.membership.swim.effects import ExchangeState, PingByStream, SendByStream, SendPacket
from proglog_trio.membership.swim.foreigners import Sender
from proglog_trio.membership.swim.node import Endpoint, NodeStatus
from proglog_trio.membership.wire.memberlist import Message, NodeStateType, PushPull, decode_message
from proglog_trio.membership.wire.packet import encode_packets
from proglog_trio.membership.wire.stream_decoder import StreamDecoder
from proglog_trio.steps import complete
from tests.membership.simulation.network import Network
from tests.membership.wire.at_once import decode_packet, encode_stream

PORT = 7946
SOCKET_PACKETS = 128
"""So many packets wait in a node's socket; what comes while they do is dropped."""
FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 15.0
COMPOUND_BYTES = 2

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# The same broadcast reaches every node: in the fast mode it is decoded once.
_decode_once = lru_cache(maxsize=65_536)(decode_message)


@frozen
class TraceEntry:
    """Something that happened at a node.

    Attributes:
        time: in seconds.
        observer: the node's name.
        life: how many nodes of that name were there before.
        event: what its core said.
    """

    time: float
    observer: str
    life: int
    event: CoreEvent


@define(eq=False)
class SimulatedNode:
    """One process.

    Attributes:
        name: of the node.
        endpoint: where it is.
        life: how many nodes of that name were there before.
        tags: what it says of itself.
        core: see Serf.
        running: it has not crashed and not stopped.
        paused: it gets no time.
        has_left: it has left in order.
        joined: an exchange of it with another has succeeded.
        events: of its members.
        queued: what arrived while it was paused.
        packets_waiting: how many packets are in that; SOCKET_PACKETS at the most.
        ahead: how far its clock is ahead of the network's, in seconds: it may have been stopped for longer.
    """

    name: str
    endpoint: Endpoint
    life: int
    tags: Mapping[str, str]
    core: Serf
    running: bool = True
    paused: bool = False
    leaving: bool = False
    has_left: bool = False
    joined: bool = False
    events: list[MemberEvent] = field(factory=list)
    queued: list[Callable[[], None]] = field(factory=list)
    packets_waiting: int = 0
    ahead: float = 0.0
    armed: float | None = None

    @property
    def is_up(self) -> bool:
        """Whether it takes part."""
        return self.running and not self.paused


@define(eq=False)
class Cluster:
    """Nodes on one network.

    Attributes:
        network: carries what they send, and knows the time.
        profile: of all nodes.
        seed: replays everything.
        encoded: packets and streams pass as bytes; otherwise each message is decoded once for all.
        traced: keep the trace.
        watch: called with each event of a core.
        nodes: the newest of each name.
        trace: what happened.
    """

    network: Network
    profile: GossipProfile
    seed: int
    encoded: bool = True
    traced: bool = True
    watch: Callable[[SimulatedNode, CoreEvent], None] | None = None
    nodes: dict[str, SimulatedNode] = field(factory=dict)
    trace: list[TraceEntry] = field(factory=list)
    by_endpoint: dict[Endpoint, SimulatedNode] = field(factory=dict)

    @classmethod
    def make(
        cls, seed: int, profile: GossipProfile | None = None, *, encoded: bool = True, traced: bool = True
    ) -> Cluster:
        """Return a cluster without nodes."""
        network = Network(random.Random(f"network {seed}"))
        return cls(network, profile if profile is not None else GossipProfile(), seed, encoded, traced)

    @property
    def now(self) -> float:
        """The time in seconds."""
        return self.network.now

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.network.run(self.now + seconds)
        assert not any(node.core.disagreements for node in self.nodes.values()), "SWIM and the members have differed"

    def run_until(self, condition: Callable[[], bool], limit: float, step: float = 0.5) -> float | None:
        """Let time pass until something is so; return how long that took, or None if it was not within the limit."""
        began = self.now
        while not condition():
            if self.now - began >= limit:
                return None
            self.run(step)
        return self.now - began

    # -- nodes ---------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> list[SimulatedNode]:
        """The nodes that run and have not left."""
        return [node for node in self.nodes.values() if node.running and not node.leaving]

    def start(
        self,
        name: str,
        endpoint: Endpoint,
        tags: Mapping[str, str] | None = None,
        cluster: ClusterTag | None = None,
    ) -> SimulatedNode:
        """Start a node, alone so far; cluster: what tells it members of others, None: nothing does."""
        before = self.nodes.get(name)
        life = before.life + 1 if before is not None else 0
        assert before is None or not before.running
        tags = tags if tags is not None else {"rpc_addr": f"{endpoint.host}:8400", "life": str(life)}
        rng = random.Random(f"node {self.seed} {name} {life}")
        holder: list[SimulatedNode] = []

        def emit(event: CoreEvent) -> None:
            self._take(holder[0], event)

        core = Serf(name, endpoint, tags, self.profile, rng, emit, now=self.now, cluster=cluster)
        node = SimulatedNode(name, endpoint, life, tags, core)
        holder.append(node)
        self.nodes[name] = self.by_endpoint[endpoint] = node
        core.start()
        self.flush(node)
        return node

    def start_many(self, count: int) -> list[SimulatedNode]:
        """Start nodes named n0, n1 and so on, each alone."""
        return [self.start(f"n{number}", address_of(number)) for number in range(count)]

    def form(self, count: int, *, limit: float = 60.0) -> list[SimulatedNode]:
        """Start nodes that join through the first, and wait until all know all."""
        nodes = self.start_many(count)
        for node in nodes[1:]:
            self.join(node, [nodes[0].endpoint])
        assert self.run_until(self.agrees, limit) is not None, self.disagreement()
        return nodes

    def crash(self, node: SimulatedNode) -> None:
        """Let a process end without a word."""
        node.running = False
        node.queued.clear()

    def pause(self, node: SimulatedNode) -> None:
        """Give a process no time; what arrives waits."""
        node.paused = True

    def resume(self, node: SimulatedNode, *, lose: bool = False, longer: float = 0.0) -> None:
        """Give a process time again: first its timers run, all that are due, then it reads what waited for it.

        Args:
            node: whose.
            lose: what waited for it is gone.
            longer: by its own clock it was stopped for so many seconds more than the others saw.
        """
        node.paused = False
        node.ahead += longer
        node.packets_waiting = 0
        if not node.running:
            return
        node.armed = None
        self.advance(node)
        self.flush(node)
        queued, node.queued = node.queued, []
        for arrive in () if lose else queued:
            arrive()

    def leave(self, node: SimulatedNode) -> None:
        """Let a node leave in order; its process ends when that is over."""
        node.leaving = True
        self.act(node, node.core.intents.leave)

    def set_tags(self, node: SimulatedNode, tags: Mapping[str, str]) -> None:
        """Let a node say something else of itself."""
        node.tags = tags
        self.act(node, lambda: node.core.set_tags(tags))

    def act(self, node: SimulatedNode, action: Callable[[], object]) -> None:
        """Do something to a core."""
        self.advance(node)
        action()
        self.flush(node)

    def advance(self, node: SimulatedNode) -> None:
        """Tell a core what its clock says."""
        node.core.swim.advance(self.now + node.ahead)

    # -- joining -------------------------------------------------------------------------------------------------------

    def join(self, node: SimulatedNode, targets: Sequence[Endpoint]) -> None:
        """Join through one of these members; tried again until one answers."""
        self._try_to_join(node, list(targets), 0, FIRST_RETRY_SECONDS)

    def _try_to_join(self, node: SimulatedNode, targets: list[Endpoint], place: int, wait: float) -> None:
        if not node.running or node.leaving:
            return
        if node.paused or place >= len(targets):
            wait = min(2 * wait, LONGEST_RETRY_SECONDS)
            self.network.after(wait * (0.5 + self.network.rng.random() / 2), self._try_to_join, node, targets, 0, wait)
            return

        def done(answered: bool) -> None:
            if answered:
                self.act(node, node.core.intents.announce_join)
            else:
                self._try_to_join(node, targets, place + 1, wait)

        self.exchange(node, targets[place], join=True, joining=True, done=done)

    def look_for(self, name: str, endpoint: Endpoint) -> bool | None:
        """Tell whether a name is free for a node at an endpoint, as every node of the cluster sees it now.

        None: not yet, since failed members have it; False: a member that is alive, or may be.
        """
        states = [
            state.state
            for node in self.live
            if node.is_up
            for state in complete(node.core.swim.states.local_state_steps())
            if state.name == name and Endpoint(state.addr, state.port) != endpoint
        ]
        if any(state in (NodeStateType.ALIVE, NodeStateType.SUSPECT) for state in states):
            return False
        return None if NodeStateType.DEAD in states else True

    # -- what a core says ----------------------------------------------------------------------------------------------

    def _take(self, node: SimulatedNode, event: CoreEvent) -> None:
        if isinstance(event, MemberEvent):
            node.events.append(event)
        elif isinstance(event, HasLeft):
            node.has_left = True
            node.running = False
        if self.traced:
            self.trace.append(TraceEntry(self.now, node.name, node.life, event))
        if self.watch is not None:
            self.watch(node, event)

    def flush(self, node: SimulatedNode) -> None:
        """Do what a core wants done, and wake it when it wants to be woken."""
        effects = node.core.swim.effects
        if effects:
            wanted, effects[:] = list(effects), []
            for effect in wanted:
                match effect:
                    case SendPacket():
                        self._send(node, effect)
                    case ExchangeState(target, _, join):
                        self.exchange(node, target, join=join)
                    case PingByStream():
                        self._ping(node, effect)
                    case SendByStream():
                        self._send_by_stream(node, effect)
        deadline = node.core.swim.next_deadline
        if deadline is not None and node.running and (node.armed is None or deadline < node.armed):
            node.armed = deadline
            self.network.at(deadline - node.ahead, self._wake, node, deadline)

    def _wake(self, node: SimulatedNode, deadline: float) -> None:
        if node.armed != deadline:
            return
        node.armed = None
        if node.is_up:
            # No earlier than that, however the difference of the clocks was rounded.
            node.core.swim.advance(max(self.now + node.ahead, deadline))
            self.flush(node)

    # -- packets -------------------------------------------------------------------------------------------------------

    def _send(self, node: SimulatedNode, packet: SendPacket) -> None:
        target = packet.target
        if self.encoded:
            packets = encode_packets(
                packet.messages, max_bytes=self.profile.packet_bytes, checksum=packet.checksum, compress=False
            )
            for data in packets:
                self.network.send(node.endpoint, target, len(data), self._arrive, target, data, node.endpoint)
            return
        size = sum(map(len, packet.messages))
        if len(packet.messages) > 1:
            size += COMPOUND_BYTES * (len(packet.messages) + 1)
        self.network.send(node.endpoint, target, size, self._arrive, target, packet.messages, node.endpoint)

    def _arrive(self, target: Endpoint, packet: bytes | tuple[bytes, ...], source: Endpoint) -> None:
        node = self.by_endpoint.get(target)
        if node is None or not node.running:
            return
        if node.paused:
            if node.packets_waiting < SOCKET_PACKETS:
                node.packets_waiting += 1
                node.queued.append(lambda: self._arrive(target, packet, source))
            return
        if isinstance(packet, bytes):
            decoded = decode_packet(packet)
            assert not decoded.errors
            messages: Sequence[Message] = decoded.messages
        else:
            messages = [_decode_once(message) for message in packet]
        self.advance(node)
        node.core.swim.receive(messages, source)
        self.flush(node)

    # -- streams -------------------------------------------------------------------------------------------------------

    def exchange(
        self,
        node: SimulatedNode,
        target: Endpoint,
        *,
        join: bool = False,
        joining: bool = False,
        done: Callable[[bool], None] | None = None,
    ) -> None:
        """Exchange states through a stream; done is told whether it happened."""
        if join and node.core.cluster is not None:
            self._look_first(node, target, joining, done)
        else:
            self._exchange(node, target, join, joining, done)

    def _look_first(
        self, node: SimulatedNode, target: Endpoint, joining: bool, done: Callable[[bool], None] | None
    ) -> None:
        """Ask what a node knows and tell it nothing; exchange states with it if it is of the same cluster."""

        def take(answer: PushPull | None) -> bool:
            if answer is None:
                return False
            self.advance(node)
            try:
                complete(node.core.push_pull.judge_steps(answer, Sender(target)))
            except StateRefused:
                return False
            finally:
                self.flush(node)
            return True

        def looked(may_be_told: bool) -> None:
            if may_be_told:
                self._exchange(node, target, True, joining, done)
            elif done is not None:
                done(False)

        self.network.traffic.streams += 1
        _Stream(self, node, target, self.profile.stream_timeout, self._serve_state, take, looked).open(PushPull())

    def _exchange(
        self, node: SimulatedNode, target: Endpoint, join: bool, joining: bool, done: Callable[[bool], None] | None
    ) -> None:
        traffic = self.network.traffic
        traffic.streams += 1

        def take(answer: PushPull | None) -> bool:
            if answer is None:
                return False
            self.advance(node)
            try:
                complete(node.core.push_pull.merge_steps(answer, ignore_events=joining, sender=Sender(target)))
            except StateRefused:
                return False
            finally:
                self.flush(node)
            node.joined = True
            traffic.state_exchanges += 1
            return True

        question = self._carried(complete(node.core.push_pull.local_state_steps(join=join)), from_dialler=True)
        _Stream(self, node, target, self.profile.stream_timeout, self._serve_state, take, done).open(question, node)

    def _serve_state(
        self, other: SimulatedNode, question: PushPull, dialler: SimulatedNode | None = None
    ) -> PushPull | None:
        """Return what a node answers to a state; None: that it is of another cluster."""
        self.advance(other)
        answer = complete(other.core.push_pull.local_state_steps(join=False))
        try:
            if question.nodes:
                sender = Sender() if dialler is None else Sender(address=dialler.endpoint.address)
                complete(other.core.push_pull.merge_steps(question, sender=sender))
        except StateRefused:
            return None
        finally:
            self.flush(other)
        return self._carried(answer, from_dialler=False)

    def _carried(self, state: PushPull, *, from_dialler: bool) -> PushPull:
        if not self.encoded:
            return state
        data = encode_stream(state, compress=False, from_dialler=from_dialler)
        carried = StreamDecoder(from_dialler=from_dialler).feed(data)
        assert isinstance(carried, PushPull)
        return carried

    def _ping(self, node: SimulatedNode, ping: PingByStream) -> None:
        self.network.traffic.streams += 1

        def serve(other: SimulatedNode, name: str, dialler: SimulatedNode | None) -> bool:
            is_elsewhere = dialler is not None and other.core.swim.rules.is_elsewhere(dialler.endpoint)
            return other.name == name and not is_elsewhere

        def take(answered: bool) -> bool:
            return answered

        def done(answered: bool) -> None:
            prober = node.core.swim.prober
            self.act(node, lambda: prober.stream_ping_ended(ping.sequence_number, answered=answered))

        _Stream(self, node, ping.target, ping.timeout, serve, take, done).open(ping.name, node)

    def _send_by_stream(self, node: SimulatedNode, effect: SendByStream) -> None:
        self.network.traffic.streams += 1

        def serve(other: SimulatedNode, payload: bytes, _dialler: SimulatedNode | None) -> bool:
            self.act(other, lambda: other.core.receive(payload))
            return True

        def take(answered: bool) -> bool:
            return answered

        _Stream(self, node, effect.target, self.profile.stream_timeout, serve, take, None).open(effect.payload, node)

    # -- what they agree on --------------------------------------------------------------------------------------------

    def agrees(self) -> bool:
        """Tell whether all live nodes know all live nodes, and agree on every other that they know."""
        return self.disagreement() is None

    def disagreement(self) -> str | None:
        """Return in words what live nodes disagree about, or None."""
        live = self.live
        names = {node.name for node in live}
        gone: dict[str, tuple[str, MemberStatus]] = {}
        for observer in live:
            members, counts = observer.core.members.by_name, observer.core.members.counts
            found = [member.status for member in members.values()]
            if counts != {status: found.count(status) for status in MemberStatus}:
                return f"{observer.name} counts {counts}, and has {found}"
            for node in live:
                member = members.get(node.name)
                if member is None:
                    return f"{observer.name} does not know {node.name}"
                if member.status is not MemberStatus.ALIVE:
                    return f"{observer.name} says that {node.name} is {member.status.value} (time {member.status_time})"
                if member.tags != node.tags or member.endpoint != node.endpoint:
                    return f"{observer.name} knows {node.name} as {member.tags} at {member.endpoint}, not {node.tags}"
                known = observer.core.swim.rules.nodes[node.name]
                if known.status is not NodeStatus.ALIVE:
                    return f"{observer.name} says that {node.name} is {known.status.name}"
            for name, member in members.items():
                if name in names:
                    continue
                if member.status in (MemberStatus.ALIVE, MemberStatus.LEAVING):
                    return f"{observer.name} says that {name}, which is gone, is {member.status.value}"
                other, status = gone.setdefault(name, (observer.name, member.status))
                if status is not member.status:
                    return f"{observer.name} says that {name} is {member.status.value}, {other}: {status.value}"
        return None

    def islands(self) -> list[list[SimulatedNode]]:
        """Return the groups of live nodes that find each other by themselves.

        A node turns to members that are alive, as it sees them, and tries failed ones again; it has nothing to do with
        those that it knows as left, at another address, or not at all.
        """
        group = {node.name: {node.name} for node in self.live}
        for node in self.live:
            for other in self.live:
                member = node.core.members.by_name.get(other.name)
                if (
                    member is not None
                    and member.status is not MemberStatus.LEFT
                    and member.endpoint == other.endpoint
                    and group[node.name] is not group[other.name]
                ):
                    merged = group[node.name] | group[other.name]
                    group.update(dict.fromkeys(merged, merged))
        return [
            [self.nodes[name] for name in sorted(names)]
            for names in {id(names): names for names in group.values()}.values()
        ]

    def all_see(self, name: str, *statuses: MemberStatus) -> bool:
        """Tell whether all live nodes say that a member has one of these statuses."""
        return all(node.core.members.by_name[name].status in statuses for node in self.live if node.name != name)


@define(eq=False)
class _Stream(Generic[Question, Answer]):
    """One connection: a question one way, an answer the other, or nothing within the timeout."""

    cluster: Cluster
    node: SimulatedNode
    target: Endpoint
    timeout: float
    serve: Callable[[SimulatedNode, Question, SimulatedNode | None], Answer]
    take: Callable[[Answer], bool]
    done: Callable[[bool], None] | None
    ended: bool = False

    def open(self, question: Question, dialler: SimulatedNode | None = None) -> None:
        """Dial and ask; dialler: as whom, where the other side looks at that."""
        network, source = self.cluster.network, self.node.endpoint

        def arrive() -> None:
            other = self.cluster.by_endpoint.get(self.target)
            if other is None or not other.running:
                network.stream(self.target, source, self.end, False)  # refused
            elif other.paused:
                other.queued.append(arrive)  # the kernel has accepted it
            else:
                network.stream(self.target, source, answered, self.serve(other, question, dialler))

        def answered(answer: Answer) -> None:
            if self.ended or not self.node.running:
                return
            if self.node.paused:
                self.node.queued.append(lambda: answered(answer))
                return
            self.end(self.take(answer))

        network.stream(source, self.target, arrive)
        network.after(self.timeout, self.end, False)

    def end(self, answered: bool) -> None:
        """Say what became of it, once."""
        if self.ended:
            return
        # Also for one that is paused: when it goes on, its time is up before it reads an answer.
        self.ended = True
        if self.node.paused:
            self.node.queued.append(lambda: self._tell(answered))
        else:
            self._tell(answered)

    def _tell(self, answered: bool) -> None:
        if self.done is not None and self.node.running:
            self.done(answered)


def address_of(number: int) -> Endpoint:
    """Return an address of a simulated host."""
    return Endpoint(bytes((10, number >> 16 & 255, number >> 8 & 255, number & 255)), PORT)
