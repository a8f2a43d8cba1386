"""Exchanges of this node's own by stream: push/pulls and pings, those that the core asks for and those that join.

Messages that are too large for packets go by stream as well; they are not answered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial

import structlog
import trio
from attrs import define, field

from proglog_trio.internal_errors import Where
from proglog_trio.membership.core_access import CoreAccess
from proglog_trio.membership.serf.clusters import StateRefused
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.stream_io import ExchangeFailed
from proglog_trio.membership.swim.effects import ExchangeState, PingByStream, SendByStream
from proglog_trio.membership.swim.foreigners import Sender
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.trouble_log import TroubleLog
from proglog_trio.membership.wire.coordinates import decode_seen_payload
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import Ack, NodeStateType, Ping, PushPull, UserMessage

MAX_EXCHANGES = 32
"""Exchanges that the core asks for, under way at once; what it asks for beyond that is not done, and counted."""

MAX_SENDING = 32
"""Messages that are being sent, at once; each may wait for a member that is not there."""
MAX_WAITING_MESSAGES = 256
"""Those that wait to be sent, of some KiB each; what comes beyond that is not sent, and counted."""

_logger = structlog.get_logger(__name__)


@define(eq=False)
class Exchanges:
    """Opens streams to others.

    Attributes:
        gossip: owns the core.
        troubles: where members that answer by stream alone are named.
    """

    gossip: CoreAccess
    troubles: TroubleLog
    # Of those that the core asks for: with whom and of what kind. No two are alike.
    _under_way: set[tuple[Endpoint, type]] = field(factory=set)
    # Of run; None: it does not run, and what the core asks for fails.
    _nursery: trio.Nursery | None = None
    _messages: deque[SendByStream] = field(factory=deque)
    # How many tasks send messages.
    _sending: int = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what start is called for, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                # Before the nursery closes: what others still ask for on their own way out would find it closed.
                self._nursery = None

    def start(self, effect: ExchangeState | PingByStream) -> None:
        """Begin what the core asks for, unless there is one like it under way, or too many."""
        key = (effect.target, type(effect))
        if self._nursery is None or key in self._under_way or len(self._under_way) >= MAX_EXCHANGES:
            self.gossip.counters.exchanges_failed += 1
            return
        self._under_way.add(key)
        if isinstance(effect, PingByStream):
            self._nursery.start_soon(self._run_one, key, partial(self._ping, effect))
        else:
            # A failed member that is tried again: what was fired on the other side of a partition is news here.
            exchange = partial(self.exchange, effect.target, join=effect.join, is_remembered=effect.is_remembered)
            self._nursery.start_soon(self._run_one, key, exchange)

    def send(self, effect: SendByStream) -> None:
        """Send a message by stream, when those before it are under way, unless too many wait."""
        if self._nursery is None or len(self._messages) >= MAX_WAITING_MESSAGES:
            self.gossip.counters.messages_by_stream_failed += 1
            return
        self._messages.append(effect)
        if self._sending < MAX_SENDING:
            self._sending += 1
            self._nursery.start_soon(self._send_waiting)

    async def _send_waiting(self) -> None:
        """Send messages until none waits."""
        counters, timeout = self.gossip.counters, self.gossip.config.profile.stream_timeout
        try:
            while self._messages:
                effect = self._messages.popleft()
                boundary = self.gossip.errors.boundary(Where.GOSSIP_EXCHANGE, target=str(effect.target))
                with boundary:
                    try:
                        await self.gossip.codec.tell(effect.target, UserMessage(effect.payload), timeout)
                        counters.messages_by_stream += 1
                    except ExchangeFailed as error:
                        counters.messages_by_stream_failed += 1
                        _logger.debug("a message was not sent by stream", reason=str(error))
                counters.messages_by_stream_failed += boundary.failed
        finally:
            self._sending -= 1

    async def _run_one(self, key: tuple[Endpoint, type], exchange: Callable[[], Awaitable[None]]) -> None:
        counters = self.gossip.counters
        counters.exchanges += 1
        boundary = self.gossip.errors.boundary(Where.GOSSIP_EXCHANGE, target=str(key[0]))
        try:
            with boundary:
                try:
                    await exchange()
                except ExchangeFailed as error:
                    counters.exchanges_failed += 1
                    _logger.debug("an exchange failed", reason=str(error))
            counters.exchanges_failed += boundary.failed
        finally:
            self._under_way.discard(key)

    async def exchange(
        self, target: Endpoint, *, join: bool, ignore_events: bool = False, is_remembered: bool = False
    ) -> None:
        """Exchange states with a member.

        Args:
            target: where it is.
            join: it is not known as a member now. Who is there is looked at first: a member of another cluster is told
                nothing, since it might merge what it is told.
            ignore_events: events of before are not delivered, now or later.
            is_remembered: a member was there before this node's start; it is told something only if what answers knows
                a member that this node knows, where that is. Not every cluster has a name.

        Raises:
            ExchangeFailed: it did not happen.
        """
        if is_remembered or (join and self.gossip.core.push_pull.looks_first):
            answer = await self.look(target)
            if is_remembered and not knows_where(answer, self._place_of):
                raise ExchangeFailed(f"{target}: what answers knows nobody of before")
        core = self.gossip.core
        awaits = ignore_events and len(core.members.with_status(MemberStatus.ALIVE, MemberStatus.LEAVING)) == 1
        with core.events.awaiting_history() if awaits else nullcontext():
            state = await self.gossip.codec.turns.run(core.push_pull.local_state_steps(join=join))
            answer = await self._ask(target, state)
            try:
                merging = core.push_pull.merge_steps(
                    answer, ignore_events=ignore_events, sender=Sender(target), join=join
                )
                await self.gossip.codec.turns.run(self.gossip.acting(merging))
            except (DecodingError, StateRefused) as error:
                raise ExchangeFailed(f"{target}: {error}") from None

    def _place_of(self, name: str) -> Endpoint | None:
        known = self.gossip.core.members.by_name.get(name)
        return None if known is None else known.endpoint

    async def look(self, target: Endpoint) -> PushPull:
        """Return what a member knows, without telling it anything.

        Raises:
            ExchangeFailed: it did not happen, or what answers is of another cluster, or may not be merged.
        """
        answer = await self._ask(target, PushPull())
        try:
            await self.gossip.codec.turns.run(
                self.gossip.acting(self.gossip.core.push_pull.judge_steps(answer, Sender(target), join=True))
            )
        except StateRefused as error:
            raise ExchangeFailed(f"{target}: {error}") from None
        return answer

    async def _ask(self, target: Endpoint, state: PushPull) -> PushPull:
        answer = await self.gossip.codec.ask(target, state, self.gossip.config.profile.stream_timeout)
        if not isinstance(answer, PushPull):
            raise ExchangeFailed(f"{target} answers a push/pull with {type(answer).__name__}")
        return answer

    async def seen_at(self, target: Endpoint, timeout: float) -> bytes:
        """Ask at which address, of 4 or 16 bytes, this node is seen; empty: it answers and does not say, like agents.

        Raises:
            ExchangeFailed: it does not answer.
        """
        # Without a name it is for whoever is there; without a source, for none to answer by packet.
        answer = await self.gossip.codec.ask(target, Ping(seq_no=1, source_node=self.gossip.config.name), timeout)
        try:
            return decode_seen_payload(answer.payload) if isinstance(answer, Ack) else b""
        except DecodingError as error:
            raise ExchangeFailed(f"{target}: {error}") from None

    async def _ping(self, ping: PingByStream) -> None:
        answered = False
        try:
            answered = await self.answers(ping.target, ping.name, ping.timeout, ping.sequence_number)
        finally:
            swim = self.gossip.core.swim
            self.gossip.act(lambda: swim.prober.stream_ping_ended(ping.sequence_number, answered=answered))
            node = swim.rules.nodes.get(ping.name)
            if answered and node is not None:
                self.troubles.packets_blocked(ping.name, ping.target, node.by_stream_alone)

    async def answers(self, target: Endpoint, name: str, timeout: float, sequence_number: int = 1) -> bool:
        """Ping a member by stream, directly; tell whether it acknowledges that, in so many seconds.

        Raises:
            ExchangeFailed: it says nothing.
        """
        ping = self.gossip.core.swim.prober.ping_to(name, sequence_number)
        answer = await self.gossip.codec.ask(target, ping, timeout)
        return isinstance(answer, Ack) and answer.seq_no == sequence_number


def knows_where(answer: PushPull, place_of: Callable[[str], Endpoint | None]) -> bool:
    """Tell whether what answers knows a live member where that is or was.

    The address of a member may be that of another cluster's by now, and not every cluster has a name.

    Args:
        answer: what it knows.
        place_of: returns where the member of a name is or was; None: none is known.
    """
    for state in answer.nodes:
        place = place_of(state.name)
        is_there = state.addr and state.state in (NodeStateType.ALIVE, NodeStateType.SUSPECT)
        if place is not None and is_there and place == Endpoint(state.addr, state.port):
            return True
    return False
