"""Gossip: the Trio side of membership. One task owns the UDP socket, the TCP listeners and the timers.

```
Gossip.run
├── receiver     UDP packets into the core, as many as have arrived at a time
├── timekeeper   wakes the core when it wants to be woken
├── listeners    one task a stream, bounded in number and time; see stream_server.py
├── keys         changes the keyring as members ask, if there is one; see key_manager.py
└── exchanges    push/pulls, pings and large messages by stream that the core asks for; see exchanges.py
```

Nothing in the core waits, and nothing here decides: what the core wants is done, what happens is told to it.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

import structlog
import trio
from attrs import Factory, define, evolve, field

from proglog_trio.accepting import accept_streams
from proglog_trio.deadline_timer import DeadlineTimer
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.core_access import GossipCounters
from proglog_trio.membership.exchanges import Exchanges
from proglog_trio.membership.key_manager import KeyManager, open_key_questions
from proglog_trio.membership.lives import is_later_life
from proglog_trio.membership.serf.clusters import ClusterTag
from proglog_trio.membership.serf.keys import KeyQuestion
from proglog_trio.membership.serf.merging import MergeCheck
from proglog_trio.membership.serf.serf import CoreEvent, Serf
from proglog_trio.membership.sockets import advertised_endpoint, bind_both, check_allowed
from proglog_trio.membership.stream_io import StreamCodec
from proglog_trio.membership.stream_server import StreamServer
from proglog_trio.membership.swim.admission import any_address
from proglog_trio.membership.swim.effects import Effect, ExchangeState, PingByStream, SendByStream, SendPacket
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.trouble_log import TroubleLog
from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.memberlist import BROADCAST_TYPES, Message, decode_message
from proglog_trio.membership.wire.packet import decode_packet_steps, encode_packets, packet_overhead
from proglog_trio.membership.wire.recent_decodings import RecentDecodings
from proglog_trio.repetition import PERIOD_SECONDS
from proglog_trio.steps import Result, Steps, Turn

PACKETS_PER_WAKEUP = 64
"""After so many packets others have a turn, or when a turn is over: one packet can be as much work as a thousand."""
LARGEST_DATAGRAM_BYTES = 65_535

_logger = structlog.get_logger(__name__)


@define(eq=False)
class Gossip:
    """A member's sockets, and the core behind them; see CoreAccess for what its parts use.

    Attributes:
        config: how it gossips.
        endpoint: what the others are told.
        core: who is there, and what to do about it.
        counters: see GossipCounters.
        codec: how messages stand on streams.
        keyring: what encrypts now; None: nothing does, and that stays so.
        errors: where unforeseen errors of packets, streams, exchanges and timers are counted.
        keys: changes the keyring; None: there is none.
        exchanges: streams to others; they may be used before run, which nothing is answered before.
    """

    config: GossipConfig
    endpoint: Endpoint
    core: Serf
    counters: GossipCounters
    codec: StreamCodec
    keyring: Keyring | None
    errors: InternalErrors
    keys: KeyManager | None = field(init=False)
    exchanges: Exchanges = field(init=False)
    _key_questions: trio.MemoryReceiveChannel[KeyQuestion]
    _udp: socket.socket
    _listener: trio.SocketListener
    _streams: StreamServer = field(init=False)
    _timer: DeadlineTimer = Factory(lambda self: DeadlineTimer(lambda: self.core.swim.next_deadline), takes_self=True)
    _troubles: TroubleLog = field(factory=TroubleLog)
    _decode: RecentDecodings[Message] = field(factory=lambda: RecentDecodings(decode_message, BROADCAST_TYPES))
    # Each of these is a task's, or what a call from outside may last; see turns.py for what streams share.
    _turn: Turn = field(factory=Turn)

    def __attrs_post_init__(self) -> None:
        manager = KeyManager(self, self.config.keyring_file, self._key_questions, self.errors)
        self.keys = None if self.keyring is None else manager
        self.exchanges = Exchanges(self, self._troubles)
        self._streams = StreamServer(self, self._troubles)
        allows = self.core.swim.rules.admission.allows
        self.codec = evolve(self.codec, allows=allows, took_plain=self._took_plain)

    @classmethod
    async def bind(
        cls,
        config: GossipConfig,
        tags: Mapping[str, str],
        emit: Callable[[CoreEvent], None],
        rng: random.Random,
        errors: InternalErrors | None = None,
        merge_check: MergeCheck | None = None,
    ) -> Gossip:
        """Open the sockets; nothing is sent or answered before run.

        Args:
            config: how to gossip.
            tags: what to tell of this node.
            emit: called with each event of the core.
            rng: the core's randomness.
            errors: see Gossip.
            merge_check: says which members may be merged; None: all may.

        Raises:
            AddressUnavailable: this machine cannot listen there, another process does, or a name cannot be looked up.
            AddressUnsuitable: no other could reach the address that would be advertised.
            ValueError: the tags are too large.
            KeyError: the tag that tells clusters apart is not among the tags.
        """
        udp, listener, bound = await bind_both(config)
        async with AsyncExitStack() as on_failure:
            on_failure.callback(udp.close)
            on_failure.push_async_callback(listener.aclose)
            errors = errors if errors is not None else InternalErrors()
            endpoint = await advertised_endpoint(config, bound, udp.family)
            on_key_query, key_questions = open_key_questions()
            tag, keyring = config.cluster_tag, config.keyring
            core = Serf(
                config.name,
                endpoint,
                tags,
                config.profile,
                rng,
                emit,
                now=trio.current_time(),
                overhead_bytes=packet_overhead(keyring=keyring, label=config.label),
                cluster=None if tag is None else ClusterTag(tag, tags[tag]),
                is_later_life=is_later_life,
                allows_address=any_address if config.allowed_networks is None else config.allowed_networks.allow,
                merge_check=merge_check,
                on_key_query=None if keyring is None else on_key_query,
                boundaries=errors.boundary,
            )
            codec = StreamCodec(keyring, config.label, config.verify_incoming, config.verify_outgoing)
            gossip = cls(config, endpoint, core, GossipCounters(), codec, keyring, errors, key_questions, udp, listener)
            on_failure.pop_all()
            return gossip

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Gossip until cancelled; then the sockets are closed, and no query waits for an answer any longer."""
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.exchanges.run)
                nursery.start_soon(self._receive_packets)
                nursery.start_soon(self._keep_time)
                if self.config.unverified is not None:
                    nursery.start_soon(self._warn, f"the gossip key keeps nobody out: {self.config.unverified}")
                nursery.start_soon(
                    accept_streams, self._listener, self._streams.serve, self.errors, Where.GOSSIP_STREAM
                )
                if self.keys is not None:
                    nursery.start_soon(self.keys.run)
                self.core.swim.advance(trio.current_time())
                self.core.start()
                self.flush()
                task_status.started()
        finally:
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

    def use_host(self, address: bytes) -> None:
        """Have the others told another host than was known when the sockets were opened; before run only.

        Args:
            address: 4 or 16 bytes.

        Raises:
            AddressUnsuitable: no member may be there.
        """
        endpoint = Endpoint(address, self.endpoint.port)
        check_allowed(endpoint, self.config)
        self.core.swim.rules.move_me(endpoint)
        self.endpoint = endpoint

    async def answer_learners(self) -> None:
        """Say to those that ask at which address they are seen, until cancelled; before run, which does so too."""
        serve = partial(self._streams.serve, only_pings=True)
        await accept_streams(self._listener, serve, self.errors, Where.GOSSIP_STREAM)

    def use_keyring(self, keyring: Keyring) -> None:
        """Encrypt and decrypt with this from now on; exchanges that are under way end as they began."""
        self.keyring = keyring
        self.codec = evolve(self.codec, keyring=keyring)

    async def _warn(self, event: str) -> None:
        """Log what somebody should end, now and every hour until then."""
        while True:
            _logger.warning(event)
            await trio.sleep(PERIOD_SECONDS)

    def _took_plain(self, host: str) -> None:
        self.counters.plain_taken += 1
        self._troubles.plain(host, self.core.swim.rules)

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
        if effects:
            self._timer.wake()
        else:
            self._timer.rearm()

    def acting(self, steps: Steps[Result]) -> Steps[Result]:
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
                    keyring=self.keyring if self.config.verify_outgoing else None,
                    label=self.config.label,
                    checksum=checksum,
                    # It fits into its packet, and arrives no sooner for being smaller. To pack and unpack it would be
                    # a third of the work of most packets, here and at the other end.
                    compress=False,
                ):
                    self._send_packet(target, packet)
            case ExchangeState() | PingByStream():
                self.exchanges.start(effect)
            case SendByStream():
                self.exchanges.send(effect)

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
                await self._timer.wait()
                self._advance()
                self.flush()

    def _send_packet(self, target: Endpoint, packet: bytes) -> None:
        if not self.core.swim.rules.admission.allows(target.address):
            # A member, or who pretends to be one, asks for it: it names another address as its own.
            self.counters.packets_dropped += 1
            return
        try:
            self._udp.sendto(packet, (target.host, target.port))
        except OSError as error:
            # As if the network had lost it: the buffer is full, there is no way, it is too large for the interface.
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
        """Read the packets that have arrived, up to a number, or for as long as a turn."""
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
                for _ in self._receive_packet(data, source):
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

    def _receive_packet(self, data: bytes, source: tuple[str, int]) -> Steps[None]:
        self.counters.packets_received += 1
        sender = Endpoint.of(source[0].partition("%")[0], source[1])
        if not self.core.swim.rules.admission.allows(sender.address):
            self.counters.sources_refused += 1
            self._troubles.not_allowed(sender.host)
            return
        try:
            decoded = yield from decode_packet_steps(
                data,
                keyring=self.keyring,
                label=self.config.label,
                verify=self.config.verify_incoming,
                decode=self._decode,
            )
        except DecodingError as error:
            self.counters.packets_refused += 1
            _logger.debug("a packet was refused", source=source[0], reason=str(error))
            if isinstance(error, NotDecrypted):
                self._troubles.another_key(source[0], self.core.swim.rules, error)
            return
        if decoded.errors:
            self.counters.packets_refused += 1
            _logger.debug("a part of a packet was refused", source=source[0], reason=str(decoded.errors[0]))
        if decoded.was_plain:
            self._took_plain(source[0])
        for message in decoded.messages:
            self.core.swim.receive((message,), sender)
            yield
