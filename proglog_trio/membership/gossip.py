"""Gossip: the Trio side of membership. One task owns the UDP socket, the TCP listeners and the timers.

```
Gossip.run
├── receiver     UDP packets into the core, as many as have arrived at a time
├── timekeeper   wakes the core when it wants to be woken
├── listeners    one task a stream, bounded in number and time
├── keys         changes the keyring as members ask, if there is one
└── exchanges    push/pulls and pings by stream that the core asks for
```

Nothing in the core waits, and nothing here decides: what the core wants is done, what happens is told to it.
"""

from __future__ import annotations

import math
import random
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import structlog
import trio
from attrs import define, field, frozen

from proglog_trio.accepting import accept_streams
from proglog_trio.address import Address
from proglog_trio.errors import AddressUnsuitable
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.key_manager import KeyManager
from proglog_trio.membership.own_addresses import address_to_advertise, address_to_listen_on
from proglog_trio.membership.profile import GossipProfile
from proglog_trio.membership.serf.clusters import ClusterTag, StateRefused
from proglog_trio.membership.serf.serf import CoreEvent, Serf
from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.swim.effects import Effect, ExchangeState, PingByStream, SendPacket
from proglog_trio.membership.swim.foreigners import Sender
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.trouble_log import TroubleLog
from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import Ack, ErrorMessage, Ping, PushPull, UserMessage
from proglog_trio.membership.wire.packet import decode_packet_steps, encode_packets, packet_overhead
from proglog_trio.steps import Result, Steps, Turn
from proglog_trio.unavailable import unavailable

MAX_STREAMS = 128
"""Streams of others that are served at once; for one more, the oldest is ended."""
MAX_EXCHANGES = 32
"""Exchanges of our own that are under way at once; what the core asks for beyond that is not done and counts."""
PACKETS_PER_WAKEUP = 64
"""After so many packets others have a turn, or when a turn is over: one packet can be as much work as a thousand."""
LARGEST_DATAGRAM_BYTES = 65_535
BIND_ATTEMPTS = 16
MAX_PASSED_OVER_BYTES = 20 * 1024 * 1024
"""Of a stream that cannot be read, before it is closed: what a state may have."""
PASSED_OVER_AT_ONCE_BYTES = 64 * 1024
LONGEST_REASON = 500
"""Characters of what is told to somebody whose stream cannot be read."""
RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
"""For packets that wait to be read, as memberlist has it: bursts come while something else holds the loop."""

_logger = structlog.get_logger(__name__)


@frozen(kw_only=True)
class GossipConfig:
    """How a node gossips.

    Attributes:
        name: of the node, unique in the cluster.
        bind_host, bind_port: where it listens, UDP and TCP; port 0: one that is free for both.
        advertise_host, advertise_port: what the others are told; None: what it listens on.
        profile: the timing.
        keyring: encrypts everything, and refuses what is not encrypted; None: all is plain.
        keyring_file: where the keyring is written to when its keys change; None: nowhere.
        label: of the cluster; packets and streams with another, or without it, are refused.
        cluster_tag: a tag of which members of other clusters have another value than this node; they are not merged.
            None: whoever is heard of is.
    """

    name: str
    bind_host: str = "127.0.0.1"
    bind_port: int = 0
    advertise_host: str | None = None
    advertise_port: int | None = None
    profile: GossipProfile = field(factory=GossipProfile)
    keyring: Keyring | None = None
    keyring_file: Path | None = None
    label: bytes = b""
    cluster_tag: str | None = None


@define
class GossipCounters:
    """What happened since the node gossips."""

    packets_sent: int = 0
    bytes_sent: int = 0
    packets_received: int = 0
    packets_refused: int = 0
    packets_dropped: int = 0
    streams_served: int = 0
    streams_refused: int = 0
    exchanges: int = 0
    exchanges_failed: int = 0


@define(eq=False)
class Gossip:
    """A member's sockets, and the core behind them.

    Attributes:
        config: how it gossips.
        endpoint: what the others are told.
        core: who is there, and what to do about it.
        counters: see GossipCounters.
        codec: how messages stand on streams.
        keyring: what encrypts now; None: nothing does.
        keys: changes the keyring; None: there is none.
        errors: where unforeseen errors of packets, streams, exchanges and timers are counted.
    """

    config: GossipConfig
    endpoint: Endpoint
    core: Serf
    counters: GossipCounters
    codec: StreamCodec
    _udp: socket.socket
    _listener: trio.SocketListener
    keyring: Keyring | None
    errors: InternalErrors = field(factory=InternalErrors)
    keys: KeyManager | None = field(init=False)
    _rescheduled: trio.Event = field(factory=trio.Event)
    _armed: float = math.inf
    _exchanges: set[tuple[Endpoint, str]] = field(factory=set)
    _served: dict[trio.CancelScope, None] = field(factory=dict)
    _nursery: trio.Nursery | None = None
    _troubles: TroubleLog = field(factory=TroubleLog)
    # Each of these is a task's, or what a call from outside may take; see turns.py for what streams share.
    _turn: Turn = field(factory=Turn)

    def __attrs_post_init__(self) -> None:
        self.core.use_boundaries(self.errors.boundary)
        self.keys = None if self.keyring is None else KeyManager(self, self.config.keyring_file, self.errors)

    @classmethod
    async def bind(
        cls,
        config: GossipConfig,
        tags: Mapping[str, str],
        emit: Callable[[CoreEvent], None],
        rng: random.Random,
        errors: InternalErrors | None = None,
    ) -> Gossip:
        """Take the sockets; nothing is sent or answered before run.

        Args:
            config: how to gossip.
            tags: what to tell of this node.
            emit: called with each event of the core.
            rng: the core's randomness.
            errors: see Gossip.

        Raises:
            AddressUnavailable: nobody can listen there, another process does, or a name cannot be looked up.
            AddressUnsuitable: nobody could reach the address that would be advertised.
            ValueError: the tags are too large.
            KeyError: the tag that tells clusters apart is not among the tags.
        """
        udp, listener, bound = await _bind_both(config)
        async with AsyncExitStack() as on_failure:
            on_failure.callback(udp.close)
            on_failure.push_async_callback(listener.aclose)
            endpoint = await _advertised(config, bound, udp.family)
            core = Serf.make(
                config.name,
                endpoint,
                tags,
                config.profile,
                rng,
                emit,
                now=trio.current_time(),
                overhead_bytes=packet_overhead(keyring=config.keyring, label=config.label),
                cluster=None
                if config.cluster_tag is None
                else ClusterTag(config.cluster_tag, tags[config.cluster_tag]),
            )
            codec = StreamCodec(config.keyring, config.label)
            errors = errors if errors is not None else InternalErrors()
            gossip = cls(config, endpoint, core, GossipCounters(), codec, udp, listener, config.keyring, errors)
            on_failure.pop_all()
            return gossip

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Gossip until cancelled; then the sockets are closed, and nobody waits for an answer any longer."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._receive_packets)
                nursery.start_soon(self._keep_time)
                nursery.start_soon(accept_streams, self._listener, self._serve_stream, self.errors, Where.GOSSIP_STREAM)
                if self.keys is not None:
                    nursery.start_soon(self.keys.run)
                self.core.swim.advance(trio.current_time())
                self.core.start()
                self.flush()
                task_status.started()
        finally:
            self._nursery = None
            self.core.querying.close_all()
            await self.close()

    @property
    def bound_host(self) -> str:
        """The numeric address that this node listens on; of a name, one of those that it stands for."""
        return str(self._udp.getsockname()[0])

    async def close(self) -> None:
        """Close the sockets; for a Gossip that does not run."""
        self._udp.close()
        with trio.CancelScope(shield=True):
            await self._listener.aclose()

    def use_keyring(self, keyring: Keyring) -> None:
        """Encrypt and decrypt with this from now on; exchanges that are under way end as they began."""
        self.keyring = keyring
        self.codec = StreamCodec(keyring, self.config.label, self.codec.turns)

    # -- the core ------------------------------------------------------------------------------------------------------

    def act(self, action: Callable[[], None]) -> None:
        """Do something to the core, now, and what it wants done for it."""
        self._advance()
        try:
            action()
        finally:
            self.flush()

    def _advance(self) -> None:
        """Say what time it is; of many timers that are due, those that are left are the timekeeper's."""
        self._turn.begin()
        self.core.swim.advance(trio.current_time(), lambda: self._turn.is_over)

    def flush(self) -> None:
        """Do what the core wants done; of much, the timekeeper does what is left, in turns."""
        effects = self.core.swim.effects
        self._turn.begin()
        boundary = self.errors.boundary(Where.GOSSIP_SEND)
        done = 0
        for effect in effects:
            done += 1
            with boundary:
                self._do(effect)
            if self._turn.is_over:
                break
        del effects[:done]
        deadline = self.core.swim.next_deadline
        if effects or (deadline is not None and deadline < self._armed):
            self._rescheduled.set()

    def _acting(self, steps: Steps[Result]) -> Steps[Result]:
        """Do something to the core in steps, and then what it wants done for it."""
        self._advance()
        try:
            return (yield from steps)
        finally:
            self.flush()

    def _do(self, effect: Effect) -> None:
        match effect:
            case SendPacket(target, messages, checksum):
                for packet in encode_packets(
                    messages,
                    max_bytes=self.config.profile.packet_bytes,
                    keyring=self.keyring,
                    label=self.config.label,
                    checksum=checksum,
                ):
                    self._send_packet(target, packet)
            case ExchangeState(target, _, join):
                self._start_exchange(target, "push/pull", self._exchange, target, join)
            case PingByStream(target, name, sequence_number, timeout):
                self._start_exchange(target, "ping", self._ping, target, name, sequence_number, timeout)

    def _start_exchange(self, target: Endpoint, kind: str, exchange: Callable[..., object], *arguments: object) -> None:
        key = (target, kind)
        if self._nursery is None or key in self._exchanges or len(self._exchanges) >= MAX_EXCHANGES:
            self.counters.exchanges_failed += 1
            return
        self._exchanges.add(key)
        self._nursery.start_soon(self._run_exchange, key, exchange, *arguments)

    async def _run_exchange(
        self, key: tuple[Endpoint, str], exchange: Callable[..., object], *arguments: object
    ) -> None:
        self.counters.exchanges += 1
        boundary = self.errors.boundary(Where.GOSSIP_EXCHANGE, target=str(key[0]))
        try:
            with boundary:
                try:
                    await exchange(*arguments)  # type: ignore[misc]  # both exchanges are coroutine functions
                except ExchangeFailed as error:
                    self.counters.exchanges_failed += 1
                    _logger.debug("an exchange failed", reason=str(error))
            self.counters.exchanges_failed += boundary.failed
        finally:
            self._exchanges.discard(key)

    async def _exchange(self, target: Endpoint, join: bool) -> None:
        # A failed member that is tried again: what was fired on the other side of a partition is news here.
        await self.exchange(target, join=join)

    async def exchange(self, target: Endpoint, *, join: bool, ignore_events: bool = False) -> None:
        """Exchange states with a member.

        Args:
            target: where it is.
            join: it is not known as a member now. Who is there is looked at first: a member of another cluster is told
                nothing, since it might merge what it is told.
            ignore_events: events of before are not delivered, now or later.

        Raises:
            ExchangeFailed: it did not happen.
        """
        if join and self.core.cluster is not None:
            await self.look(target)
        state = await self.codec.turns.run(self.core.local_state_steps(join=join))
        answer = await self.codec.ask(target, state, self.config.profile.stream_timeout)
        if not isinstance(answer, PushPull):
            raise ExchangeFailed(f"{target} answers a push/pull with {type(answer).__name__}")
        try:
            merging = self.core.merge_steps(answer, ignore_events=ignore_events, sender=Sender(target))
            await self.codec.turns.run(self._acting(merging))
        except (DecodingError, StateRefused) as error:
            raise ExchangeFailed(f"{target}: {error}") from None

    async def look(self, target: Endpoint) -> PushPull:
        """Return what a member knows, without telling it anything.

        Raises:
            ExchangeFailed: it did not happen, or who answers is of another cluster.
        """
        answer = await self.codec.ask(target, PushPull(), self.config.profile.stream_timeout)
        if not isinstance(answer, PushPull):
            raise ExchangeFailed(f"{target} answers a push/pull with {type(answer).__name__}")
        try:
            await self.codec.turns.run(self._acting(self.core.judge_steps(answer, Sender(target))))
        except StateRefused as error:
            raise ExchangeFailed(f"{target}: {error}") from None
        return answer

    async def _ping(self, target: Endpoint, name: str, sequence_number: int, timeout: float) -> None:
        answered = False
        try:
            answered = await self.answers(target, name, timeout, sequence_number)
        finally:
            prober = self.core.swim.prober
            self.act(lambda: prober.stream_ping_ended(sequence_number, answered=answered))
            node = self.core.swim.rules.nodes.get(name)
            if answered and node is not None:
                self._troubles.packets_blocked(name, target, node.by_stream_alone)

    async def answers(self, target: Endpoint, name: str, timeout: float, sequence_number: int = 1) -> bool:
        """Ping a member by stream, directly; tell whether it acknowledges that, in so many seconds.

        Raises:
            ExchangeFailed: it says nothing.
        """
        me = self.endpoint
        ping = Ping(
            seq_no=sequence_number,
            node=name,
            source_addr=me.address,
            source_port=me.port,
            source_node=self.config.name,
        )
        answer = await self.codec.ask(target, ping, timeout)
        return isinstance(answer, Ack) and answer.seq_no == sequence_number

    # -- time and packets ----------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        turns = self.errors.turns(Where.GOSSIP_TIMER)
        while True:
            async with turns:
                if self.core.swim.effects:
                    # Before more of it is made.
                    await trio.lowlevel.checkpoint()
                    self.flush()
                    continue
                deadline = self.core.swim.next_deadline
                self._armed = math.inf if deadline is None else deadline
                self._rescheduled = trio.Event()
                with trio.CancelScope(deadline=self._armed):
                    await self._rescheduled.wait()
                self._advance()
                self.flush()

    def _send_packet(self, target: Endpoint, packet: bytes) -> None:
        try:
            self._udp.sendto(packet, (target.host, target.port))
        except OSError as error:
            # As if the network had lost it: the buffer is full, nobody is there, it is too large for the interface.
            self.counters.packets_dropped += 1
            _logger.debug("a packet could not be sent", target=str(target), reason=str(error))
        else:
            self.counters.packets_sent += 1
            self.counters.bytes_sent += len(packet)

    async def _receive_packets(self) -> None:
        turns = self.errors.turns(Where.GOSSIP_PACKET)
        while True:
            async with turns:
                await trio.lowlevel.wait_readable(self._udp)
                self._advance()
                try:
                    await self._receive_waiting()
                finally:
                    self.flush()

    async def _receive_waiting(self) -> None:
        """Take the packets that have arrived, up to a number, or for as long as a turn."""
        turn = Turn()
        turn.begin()
        for _ in range(PACKETS_PER_WAKEUP):
            try:
                data, source = self._udp.recvfrom(LARGEST_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError as error:
                # What earlier packets met on their way (ICMP); the socket itself is fine.
                _logger.debug("the network refused a packet", reason=str(error))
                continue
            with self.errors.boundary(Where.GOSSIP_PACKET, source=source[0]):
                for _ in self._take_packet(data, source):
                    if turn.is_over:
                        await self._rest()
                        turn.begin()
            if turn.is_over:
                break

    async def _rest(self) -> None:
        """Let others have a turn in the middle of a packet; what was to be sent goes before there is more of it."""
        while True:
            self.flush()
            await trio.lowlevel.checkpoint()
            if not self.core.swim.effects:
                break
        self._advance()

    def _take_packet(self, data: bytes, source: tuple[str, int]) -> Steps[None]:
        self.counters.packets_received += 1
        try:
            decoded = yield from decode_packet_steps(data, keyring=self.keyring, label=self.config.label)
        except DecodingError as error:
            self.counters.packets_refused += 1
            _logger.debug("a packet was refused", source=source[0], reason=str(error))
            if isinstance(error, NotDecrypted):
                self._tell_of_another_key(source[0], error)
            return
        if decoded.errors:
            self.counters.packets_refused += 1
            _logger.debug("a part of a packet was refused", source=source[0], reason=str(decoded.errors[0]))
        sender = Endpoint.of(source[0].partition("%")[0], source[1])
        for message in decoded.messages:
            self.core.swim.receive((message,), sender)
            yield

    # -- streams of others ---------------------------------------------------------------------------------------------

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        # For one more than there may be, the oldest goes: an exchange that is meant takes milliseconds.
        while len(self._served) >= MAX_STREAMS:
            oldest = next(iter(self._served))
            del self._served[oldest]
            oldest.cancel()
        source = _host_of(stream)
        try:
            with trio.move_on_after(self.config.profile.stream_timeout) as scope:
                self._served[scope] = None
                async with stream:
                    await self._serve(stream)
            if scope.cancelled_caught:
                self.counters.streams_refused += 1
                _logger.debug("a stream was refused", reason="it took too long")
        except (DecodingError, StateRefused, OSError, trio.BrokenResourceError) as error:
            self.counters.streams_refused += 1
            _logger.debug("a stream was refused", source=source, reason=str(error))
            if isinstance(error, NotDecrypted) and source is not None:
                self._tell_of_another_key(source, error)
        finally:
            self._served.pop(scope, None)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            message = await self.codec.receive(stream, from_dialler=True)
        except DecodingError as error:
            await self._say_why(stream, error)
            raise
        self.counters.streams_served += 1
        match message:
            case PushPull():
                await self._answer_state(stream, message)
            case Ping() if message.source_addr and self._is_elsewhere(message):
                self.core.swim.rules.counters.of_other_clusters += 1
            case Ping():
                answer = self.core.swim.prober.ping(message, None)
                if answer is not None:
                    await self.codec.send(stream, answer, from_dialler=False)
            case UserMessage(payload):
                self.act(lambda: self.core.receive(payload))

    def _tell_of_another_key(self, host: str, error: NotDecrypted) -> None:
        address = host.partition("%")[0]
        nodes = self.core.swim.rules.nodes

        def members() -> list[str]:
            return sorted(
                name for name, node in nodes.items() if node.endpoint.host == address and name != self.config.name
            )

        self._troubles.another_key(address, members, str(error))

    async def _say_why(self, stream: trio.SocketStream, error: DecodingError) -> None:
        """Answer what cannot be read with the reason, as agents do: otherwise people see that the stream ended."""
        with suppress(OSError, trio.BrokenResourceError):
            await self.codec.send(stream, ErrorMessage(str(error)[:LONGEST_REASON]), from_dialler=False)
            await stream.send_eof()
            # To close while the rest is on its way would reset the connection, and the answer be lost with it.
            room = MAX_PASSED_OVER_BYTES
            while room > 0 and (data := await stream.receive_some(PASSED_OVER_AT_ONCE_BYTES)):
                room -= len(data)

    def _is_elsewhere(self, ping: Ping) -> bool:
        return self.core.swim.rules.is_elsewhere(Endpoint(ping.source_addr, ping.source_port))

    async def _answer_state(self, stream: trio.SocketStream, state: PushPull) -> None:
        answer, problem = await self.codec.turns.run(self._acting(self._exchanged(state, _dialler(stream))))
        await self.codec.send(stream, answer, from_dialler=False)
        if problem is not None:
            raise problem

    def _exchanged(
        self, state: PushPull, sender: Sender
    ) -> Steps[tuple[PushPull | ErrorMessage, DecodingError | StateRefused | None]]:
        """Return what was known before a state was merged, and what is wrong with that state.

        Who is of another cluster is told that alone: others than this program merge what they are told.
        """
        answer = yield from self.core.local_state_steps(join=False)
        if state.nodes or state.user_state:
            # Before anything is waited for: of those that join at one moment, each is then told of the ones before it.
            try:
                yield from self.core.merge_steps(state, sender=sender)
            except StateRefused as error:
                return ErrorMessage(f"the node at {self.endpoint} does not merge your cluster: {error}"), error
            except DecodingError as error:
                return answer, error
        return answer, None


def _host_of(stream: trio.SocketStream) -> str | None:
    """Return who is at the other end of a stream; None: it has gone already."""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return None


def _dialler(stream: trio.SocketStream) -> Sender:
    """Return who is at the other end of a stream, as far as it tells."""
    host = _host_of(stream)
    return Sender() if host is None else Sender(address=Endpoint.of(host.partition("%")[0], 0).address)


async def _bind_both(config: GossipConfig) -> tuple[socket.socket, trio.SocketListener, tuple[str, int]]:
    """Listen for streams and packets on one port; return both sockets and the address."""
    problem = OSError()
    host = await address_to_listen_on(config.bind_host)
    for _ in range(BIND_ATTEMPTS if config.bind_port == 0 else 1):
        try:
            (listener,) = await trio.open_tcp_listeners(config.bind_port, host=host)
        except OSError as error:
            raise unavailable(f"cannot gossip on {Address(config.bind_host, config.bind_port)}", error) from None
        tcp = listener.socket
        udp = socket.socket(tcp.family, socket.SOCK_DGRAM)
        try:
            udp.setblocking(False)
            # The system gives less where its limit (net.core.rmem_max) is lower.
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            udp.bind(tcp.getsockname())
        except OSError as error:
            # With any port allowed, the one that is free for streams may be taken for packets.
            udp.close()
            await listener.aclose()
            problem = error
            continue
        bound = tcp.getsockname()
        return udp, listener, (bound[0], bound[1])
    raise unavailable(f"cannot gossip on {Address(config.bind_host, config.bind_port)} (UDP)", problem)


async def _advertised(config: GossipConfig, bound: tuple[str, int], family: int) -> Endpoint:
    """Return what the others are told: an address of the family that this node listens on."""
    host, port = bound
    if config.advertise_host is not None:
        host = await address_to_advertise(config.advertise_host, family)
    endpoint = Endpoint.of(host.partition("%")[0], config.advertise_port or port)
    if not any(endpoint.address):
        raise AddressUnsuitable(f"others cannot dial {host}: say with --advertise-addr what they can")
    return endpoint
