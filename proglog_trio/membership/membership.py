"""Membership: who is in the cluster, and news of it, for the rest of a program.

```
Membership.run
├── gossip       see gossip.py
├── handler      tells the handler of peers that come and go
└── joining      tries the start addresses for as long as one of them is no live member; see joining.py
```
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

import structlog
import trio
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.errors import DirectoryCopied, NameTaken, ProglogError
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.foreigner_log import ForeignerLog
from proglog_trio.membership.gossip import Gossip, GossipConfig
from proglog_trio.membership.joining import START_SECONDS, Joining, exchange_with
from proglog_trio.membership.lookup import Lookups, endpoints_of, problems_of
from proglog_trio.membership.name_contest import NameContest
from proglog_trio.membership.names import PING_SECONDS, is_later_life
from proglog_trio.membership.serf.clusters import Foreigner
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.members import together
from proglog_trio.membership.serf.serf import Conflict, CoreEvent, HasLeft
from proglog_trio.membership.stream_io import ExchangeFailed
from proglog_trio.membership.swim.effects import Paused, StatusChange

RPC_ADDRESS_TAG = "rpc_addr"
MAX_WAITING_EVENTS = 1024
HANDLER_CLOSE_SECONDS = 5.0
FIRST_HANDLER_RETRY_SECONDS = 1.0
LONGEST_HANDLER_RETRY_SECONDS = 60.0

_logger = structlog.get_logger(__name__)


class JoinFailed(ProglogError):
    """None of the addresses answered."""


class NotAMember(ProglogError):
    """This node cannot leave the cluster: it gossips not yet, or not any more."""


class EventsMissed(ProglogError):
    """A subscriber did not take its events fast enough; it should look at all members anew."""


class Handler(Protocol):
    """Told of peers: members other than this node that say where they take RPCs."""

    async def join(self, name: str, addr: str) -> None:
        """A peer is there. Not called again for this name before leave was.

        When it raises, leave and join are called again after a while, for as long as the peer is there.
        """

    async def leave(self, name: str) -> None:
        """A peer has left, has failed, or is now at another address (then join follows)."""


@define
class _Told:
    """What the handler knows of one peer, and what it should."""

    address: str | None = None
    went: bool = False


@define
class _Retry:
    """A peer whose join failed: when it is tried again, and how long that took to come."""

    at: float
    wait: float


@define(eq=False)
class _Subscription:
    send: trio.MemorySendChannel[MemberEvent]
    missed: bool = False


@define(eq=False)
class _Events:
    """The iterator of one subscription; no generator, since one that is left early wants to be closed by hand."""

    _subscription: _Subscription
    _receive: trio.MemoryReceiveChannel[MemberEvent]

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> MemberEvent:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._subscription.missed:
                raise EventsMissed(f"more than {MAX_WAITING_EVENTS} events waited") from None
            raise StopAsyncIteration from None


@define(eq=False)
class Membership:
    """A node's place in the cluster.

    Attributes:
        gossip: the sockets and the core.
        conflicts: how often somebody claimed a name that is taken.
        handler_failures: how often the handler raised.
    """

    gossip: Gossip
    _handler: Handler | None
    _rng: random.Random
    _subscriptions: set[_Subscription] = field(factory=set)
    _waiting: list[MemberEvent] = field(factory=list)
    _dirty: dict[str, _Told] = field(factory=dict)
    _told: dict[str, str] = field(factory=dict)
    _news: trio.Event = field(factory=trio.Event)
    _peer_news: trio.Event = field(factory=trio.Event)
    _left: trio.Event = field(factory=trio.Event)
    _retries: dict[str, _Retry] = field(factory=dict)
    _foreigner_log: ForeignerLog = field(factory=ForeignerLog)
    _lookups: Lookups = field(factory=Lookups)
    _joining: Joining | None = None
    _is_unsure: bool = False
    _has_left: bool = False
    _running: bool = False
    _ended: bool = False
    _contest: NameContest | None = None
    conflicts: int = 0
    handler_failures: int = 0

    @property
    def errors(self) -> InternalErrors:
        """Where unforeseen errors are counted."""
        return self.gossip.errors

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """This node's name."""
        return self.gossip.config.name

    def members(self) -> list[Member]:
        """Return all members that are or were there, this node among them, by name."""
        return sorted(self.gossip.core.snapshot(), key=lambda member: member.name)

    def names(self) -> list[str]:
        """Return the names of all members that are or were there, in their order."""
        return sorted(self.gossip.core.members.by_name)

    def alive_with_tag(self, tag: str, *, like: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the names of the members that are alive and have a tag, in their order, and what each has there.

        Args:
            tag: its name.
            like: other tags that they must have too, with these values.
        """
        members = self.gossip.core.members.with_status(MemberStatus.ALIVE)
        return sorted(
            (member.name, member.tags[tag])
            for member in members
            if member.tags.get(tag) and all(member.tags.get(name) == value for name, value in like.items())
        )

    def member(self, name: str) -> Member | None:
        """Return the member of a name, or None if nobody has it."""
        known = self.gossip.core.members.by_name.get(name)
        return None if known is None else known.snapshot()

    def statuses(self) -> dict[str, MemberStatus]:
        """Return the status of each member that is or was there, by name."""
        return {name: member.status for name, member in self.gossip.core.members.by_name.items()}

    def count(self, status: MemberStatus) -> int:
        """Return how many members have a status."""
        return sum(member.status is status for member in self.gossip.core.members.by_name.values())

    async def answers(self, name: str) -> bool:
        """Ping a member directly, by stream; tell whether it answers within a second."""
        member = self.gossip.core.members.by_name.get(name)
        if member is None:
            return False
        try:
            return await self.gossip.answers(member.endpoint, name, PING_SECONDS)
        except ExchangeFailed:
            return False

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tell everybody other tags of this node; raises ValueError if they take more than 512 bytes."""
        self.gossip.act(lambda: self.gossip.core.set_tags(tags))

    def force_leave(self, name: str, *, prune: bool = False) -> bool:
        """Let a failed member count as left; prune: forget it at once. Tell whether it is known."""
        known = False

        def force() -> None:
            nonlocal known
            known = self.gossip.core.force_leave(name, prune=prune)

        self.gossip.act(force)
        return known

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[MemberEvent]]:
        """Subscribe to what happens from now on.

        The iterator ends when this node is no member any more, and raises EventsMissed if more than 1,024 events wait
        for it.
        """
        send, receive = trio.open_memory_channel[MemberEvent](MAX_WAITING_EVENTS)
        subscription = _Subscription(send)
        self._subscriptions.add(subscription)
        if self._ended:
            send.close()
        try:
            async with receive:
                yield _Events(subscription, receive)
        finally:
            self._subscriptions.discard(subscription)

    # -- what happens --------------------------------------------------------------------------------------------------

    def emit(self, event: CoreEvent) -> None:
        """Take an event of the core; called while it works, and never raises an Exception."""
        boundary = self.errors.boundary(Where.GOSSIP_NEWS)
        with boundary:
            self._emit(event)
        if boundary.failed:
            # What the handler was to be told is found out by looking at everybody.
            self._is_unsure = True
            self._peer_news.set()

    def _emit(self, event: CoreEvent) -> None:
        match event:
            case MemberEvent():
                self._waiting.append(event)
                for member in event.members:
                    self._note(member, event.kind)
                self._news.set()
                self._peer_news.set()
                if self._joining is not None and event.kind not in (MemberEventKind.JOIN, MemberEventKind.UPDATE):
                    self._joining.wake()
            case HasLeft():
                self._has_left = True
                self._left.set()
            case Conflict(name, endpoint):
                self.conflicts += 1
                if name == self.name and self._contest is not None:
                    self._contest.note()
                _logger.error("another member claims a name that is taken", name=name, claimed_by=str(endpoint))
            case Foreigner():
                self._foreigner_log.tell(event)
            case Paused(seconds):
                _logger.warning("this process was stopped, or its loop was held", seconds=round(seconds, 1))
            case StatusChange():
                _logger.debug(
                    "gossip",
                    member=event.name,
                    before=None if event.before is None else event.before.name.lower(),
                    after=event.after.name.lower(),
                    incarnation=event.incarnation,
                    reason=event.reason,
                )

    def _note(self, member: Member, kind: MemberEventKind) -> None:
        """Note what the handler must be told; what it was not told of yet is replaced by what is true now."""
        if member.name == self.name:
            return
        pending = self._dirty.setdefault(member.name, _Told())
        if kind in (MemberEventKind.JOIN, MemberEventKind.UPDATE):
            pending.address = member.tags.get(RPC_ADDRESS_TAG) or None
        elif kind is not MemberEventKind.REAP:
            pending.address, pending.went = None, True

    def _look_at_everybody(self) -> None:
        """Note what the handler must be told of all peers, whatever it was told."""
        members = self.members()
        for member in members:
            is_there = member.status in (MemberStatus.ALIVE, MemberStatus.LEAVING)
            self._note(member, MemberEventKind.UPDATE if is_there else MemberEventKind.FAILED)
        for name in self._told.keys() - {member.name for member in members}:
            self._dirty[name] = _Told(None, went=True)
        self._is_unsure = False

    async def _tell_all_subscribers(self) -> None:
        """Tell subscribers what is new; what came since they were last told comes together."""
        turns = self.errors.turns(Where.MEMBERSHIP_SUBSCRIBER)
        while True:
            async with turns:
                await self._news.wait()
                self._news = trio.Event()
                self._tell_what_waits()

    def _tell_what_waits(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._tell_subscribers(waiting)

    def _end(self) -> None:
        """Let nobody wait for what the tasks of run would have done."""
        self._running, self._ended = False, True
        self._left.set()
        self._tell_what_waits()
        for subscription in self._subscriptions:
            subscription.send.close()

    async def _tell_of_peers(self) -> None:
        """Tell the handler of peers; in a task of its own, since it may take its time."""
        turns = self.errors.turns(Where.MEMBERSHIP_HANDLER)
        try:
            while True:
                async with turns:
                    with trio.CancelScope(deadline=min((each.at for each in self._retries.values()), default=math.inf)):
                        await self._peer_news.wait()
                    self._peer_news = trio.Event()
                    if self._is_unsure:
                        self._look_at_everybody()
                    self._note_retries()
                    while self._dirty:
                        # One at a time: each may begin something.
                        await trio.lowlevel.checkpoint()
                        name = next(iter(self._dirty))
                        await self._tell_handler(name, self._dirty.pop(name))
        finally:
            with trio.move_on_after(HANDLER_CLOSE_SECONDS, shield=True):
                for name in list(self._told):
                    await self._tell_handler(name, _Told())

    def _note_retries(self) -> None:
        now = trio.current_time()
        for name in [name for name, retry in self._retries.items() if retry.at <= now]:
            if name in self._told:
                # What is known by now of the peer counts, where there is news of it.
                self._dirty.setdefault(name, _Told(self._told[name])).went = True
            else:
                del self._retries[name]

    def _tell_subscribers(self, events: Sequence[MemberEvent]) -> None:
        boundary = self.errors.boundary(Where.MEMBERSHIP_SUBSCRIBER)
        with boundary:
            for event in together(events):
                _logger.info("members", happened=event.kind.value, names=[member.name for member in event.members])
                for subscription in list(self._subscriptions):
                    self._tell_subscriber(subscription, event)
        if boundary.failed:
            for subscription in list(self._subscriptions):
                self._miss(subscription)

    def _tell_subscriber(self, subscription: _Subscription, event: MemberEvent) -> None:
        boundary = self.errors.boundary(Where.MEMBERSHIP_SUBSCRIBER)
        with boundary:
            try:
                subscription.send.send_nowait(event)
            except trio.WouldBlock:
                self._miss(subscription)
            except trio.BrokenResourceError:
                self._subscriptions.discard(subscription)
        if boundary.failed:
            self._miss(subscription)

    def _miss(self, subscription: _Subscription) -> None:
        """End a subscription that was not told of everything, and have it say so."""
        subscription.missed = True
        self._subscriptions.discard(subscription)
        subscription.send.close()

    async def _tell_handler(self, name: str, pending: _Told) -> None:
        if self._handler is None:
            return
        known = self._told.get(name)
        if known is not None and (pending.went or pending.address != known):
            del self._told[name]
            await self._call("leave", name, known, partial(self._handler.leave, name))
            known = None
        if known is None and pending.address is not None:
            self._told[name] = pending.address
            if await self._call("join", name, pending.address, partial(self._handler.join, name, pending.address)):
                self._retries.pop(name, None)
            else:
                self._retry_later(name)
        if name not in self._told:
            self._retries.pop(name, None)

    def _retry_later(self, name: str) -> None:
        before = self._retries.get(name)
        wait = FIRST_HANDLER_RETRY_SECONDS
        if before is not None:
            wait = min(before.wait * 2, LONGEST_HANDLER_RETRY_SECONDS)
        self._retries[name] = _Retry(trio.current_time() + wait, wait)

    async def _call(self, what: str, name: str, address: str, call: Callable[[], Awaitable[None]]) -> bool:
        """Call the handler; tell whether it did not raise."""
        boundary = self.errors.boundary(Where.MEMBERSHIP_HANDLER, call=what, name=name, rpc_addr=address)
        with boundary:
            await call()
        self.handler_failures += boundary.failed
        return not boundary.failed

    # -- joining and leaving -------------------------------------------------------------------------------------------

    async def run(
        self,
        start_addresses: Sequence[Address] = (),
        *,
        name_patience: float = 0.0,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Be a member until cancelled; leave first, to leave in order.

        Args:
            start_addresses: members to join through; tried for as long as one of them is no live member.
            name_patience: how long, in seconds, this node waits for its name while another member has it.
            task_status: started once this node takes packets, and has joined through the start addresses that answered
                at once: it does not wait for the others.

        Raises:
            NameTaken: another member, that is alive or has not been forgotten, has this node's name. Nobody has seen
                this node then. Or most members know this node's name at another address, see name_contest.py.
            DirectoryCopied: likewise, and it uses a copy of the same data directory.
        """
        joining = Joining(self.gossip, start_addresses, name_patience, self._lookups, self.errors, self._rng)
        contest = self._contest = NameContest(self.gossip, self.errors)
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                self._lookups.nursery = nursery
                nursery.start_soon(self._tell_all_subscribers)
                nursery.start_soon(self._tell_of_peers)
                await self._start(nursery, joining, contest, task_status)
                if joining.ending is not None:
                    # Raised below, by itself and not in a group.
                    nursery.cancel_scope.cancel()
        finally:
            self._lookups.nursery = None
            self._end()
            await self.gossip.close()
        ending = joining.ending or contest.ending
        if ending is not None:
            raise ending

    async def _start(
        self, nursery: trio.Nursery, joining: Joining, contest: NameContest, task_status: trio.TaskStatus[None]
    ) -> None:
        async def keep_joining() -> None:
            await joining.run()
            nursery.cancel_scope.cancel()

        async def settle_names() -> None:
            await contest.run()
            nursery.cancel_scope.cancel()

        try:
            joinable = await joining.first() if joining.addresses else []
        except (NameTaken, DirectoryCopied) as error:
            joining.ending = error
            return
        await nursery.start(self.gossip.run)
        nursery.start_soon(settle_names)
        with trio.move_on_after(START_SECONDS):
            await joining.join_through(joinable)
        task_status.started()
        if joining.addresses:
            self._joining = joining
            nursery.start_soon(keep_joining)

    async def join(self, addresses: Sequence[Address], *, ignore_events: bool = True) -> int:
        """Join through all of these members; return how many answered.

        Every address that a name stands for is tried.

        Args:
            addresses: of members.
            ignore_events: user events that were fired before are not delivered, now or later.

        Raises:
            JoinFailed: none answered, or this node is no member any more.
        """
        if self._ended:
            raise JoinFailed("this node does not gossip any more")
        looked_up = await self._lookups.look_up(addresses)
        # One name may stand for all members, this node among them.
        others = [endpoint for endpoint in endpoints_of(looked_up) if endpoint != self.gossip.endpoint]
        joined, unjoined = await exchange_with(self.gossip, self.errors, others, ignore_events=ignore_events)
        problems = [*problems_of(looked_up), *unjoined]
        if not joined:
            raise JoinFailed(f"no member answered: {'; '.join(problems) or 'there is no address to try'}")
        self.gossip.act(self.gossip.core.announce_join)
        return joined

    async def leave(self) -> None:
        """Leave the cluster in order; returns when the others were told, or the profile's timeouts are over.

        Raises:
            NotAMember: `run` has not begun or is over, or ended meanwhile: the others will see this node fail.
        """
        if self._running:
            self.gossip.act(self.gossip.core.leave)
            await self._left.wait()
        if not self._has_left:
            raise NotAMember("this node cannot leave the cluster in order: it does not gossip")


async def bind_membership(
    config: GossipConfig,
    tags: Mapping[str, str],
    *,
    handler: Handler | None = None,
    rng: random.Random | None = None,
    errors: InternalErrors | None = None,
) -> Membership:
    """Take a member's sockets and return it; it does nothing before `run`.

    Args:
        config: how it gossips.
        tags: what is told of this node; `rpc_addr` makes it a peer to others.
        handler: told of peers.
        rng: decides whom to probe and gossip to; None: one that the system seeds.
        errors: where unforeseen errors are counted.

    Raises:
        AddressUnavailable, ValueError: see Gossip.bind.
    """
    # Seeded by the system. Its own randomness would cost a call of it for each number, and a round has many.
    rng = rng if rng is not None else random.Random()
    waiting: list[CoreEvent] = []
    gossip = await Gossip.bind(config, tags, waiting.append, rng, errors)
    membership = Membership(gossip, handler, rng)
    gossip.core.swim.rules.is_later_life = is_later_life
    gossip.core.emit = gossip.core.members.emit = membership.emit
    return membership
