"""Membership: who is in the cluster, and news of it, for the rest of a program.

```
Membership.run
├── gossip       see gossip.py
├── handler      tells the handler of peers that come and go; see peer_notifier.py
├── subscribers  tells them what happens to members, user events and queries; see subscriptions.py
├── queries      calls the handlers of queries; see events/query_handlers.py
├── contest      settles who keeps this node's name; see name_contest.py
├── keeper       writes down who the members are, for the next start; see snapshot/
└── joining      tries the start addresses for as long as one of them is no live member, and the members of before for
                 as long as this node is alone; see joining.py
```
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import trio
from attrs import define, field

from proglog_trio.address import Address, StartAddress
from proglog_trio.errors import ProglogError
from proglog_trio.membership.addresses.lookup import Lookups, endpoints_of, problems_of
from proglog_trio.membership.addresses.service_records import ServiceRecords
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.events.query_answers import QueryAnswers
from proglog_trio.membership.events.talking import Talking
from proglog_trio.membership.host_learning import HostLearning
from proglog_trio.membership.joining import START_SECONDS, Joining, exchange_with
from proglog_trio.membership.key_manager import KeyManager
from proglog_trio.membership.known_members import KnownMembers
from proglog_trio.membership.name_contest import NameContest
from proglog_trio.membership.names import PING_SECONDS
from proglog_trio.membership.news import News
from proglog_trio.membership.self_description.stats import Stats, stats_of
from proglog_trio.membership.self_description.tag_keeper import TagKeeper
from proglog_trio.membership.serf.member import MemberEvent
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.snapshot.keeper import Keeper
from proglog_trio.membership.stream_io import ExchangeFailed

_NOTHING: Mapping[str, str] = MappingProxyType({})


class JoinFailed(ProglogError):
    """None of the addresses answered."""


class NotAMember(ProglogError):
    """What was asked for cannot be done: this node gossips not yet, or not any more."""


@define(eq=False)
class Membership(KnownMembers):
    """A member of a cluster: what it knows of the others, and how it joins and leaves.

    Made by open_membership or bind_membership. To be used in one Trio loop, and from no other thread.

    Attributes:
        gossip: the sockets and the core; for tests and tools, not part of the public face.
        news: what the core says has happened; likewise.
    """

    news: News
    _rng: random.Random
    _tags: TagKeeper
    _keeper: Keeper
    # With a nursery while run runs: what is under way for a name is then waited for by all that want it.
    _lookups: Lookups = field(init=False)
    _running: bool = False
    # The host that others are told is known: it was given, or was learnt.
    _knows_host: bool = field(init=False)
    # It gossips, and the start addresses were asked: by the cluster's clocks, what it sends now is news to the others.
    _is_ready: bool = False
    # run is over: nothing is waited for any more. Never set together with _running.
    _ended: bool = False
    _contest: NameContest = field(init=False)
    _talking: Talking = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._talking = Talking(self.gossip)
        self._contest = NameContest(self.gossip, self.news.name_claimed)
        self._lookups = self._new_lookups()
        self._knows_host = not self.gossip.config.learn_host

    @property
    def address(self) -> Address:
        """What the others are told: where this node takes gossip."""
        return Address(self.gossip.endpoint.host, self.gossip.endpoint.port)

    @property
    def bound_host(self) -> str:
        """The numeric address that this node listens on."""
        return self.gossip.bound_host

    @property
    def keys(self) -> KeyManager | None:
        """Changes the gossip keys of all members; None: gossip is not encrypted."""
        return self.gossip.keys

    @property
    def unverified(self) -> str | None:
        """That the gossip key keeps nobody out at present, in words; None: it does, or there is none."""
        return self.gossip.config.unverified

    @property
    def counters(self) -> Mapping[str, Any]:
        """What happened since this node gossips, by the part that counts it: attrs classes of numbers."""
        core = self.gossip.core
        return {
            "gossip": self.gossip.counters,
            "swim": core.swim.rules.counters,
            "serf_refused": core.refused,
            "queries": self.news.handlers.counters,
            "snapshot": self._keeper.counters,
        }

    # -- what there is -------------------------------------------------------------------------------------------------

    async def status_change(self) -> None:
        """Return when the status of any member has changed: also from alive to leaving, of which there is no event."""
        await self.news.status_changed.wait()

    async def change_after(self, seen: int) -> int:
        """Return how many changes of members' statuses and tags there were, once there were more than so many.

        For a task that looks at the members after each change: what changes while it looks is not missed.
        """
        while self.news.changes_seen <= seen:
            await self.news.changed.wait()
        return self.news.changes_seen

    async def answers(self, name: str) -> bool:
        """Ping a member directly, by stream; tell whether it answers within a second."""
        member = self.gossip.core.members.by_name.get(name)
        if member is None:
            return False
        try:
            return await self.gossip.exchanges.answers(member.endpoint, name, PING_SECONDS)
        except ExchangeFailed:
            return False

    def stats(self) -> Stats:
        """Return this node's figures in groups, as `serf info` has them: see self_description/stats.py."""
        return stats_of(self.gossip, self.tags)

    # -- this node's tags ----------------------------------------------------------------------------------------------

    @property
    def tags(self) -> dict[str, str]:
        """This node's tags, as they are told to the others."""
        return self._tags.tags.all()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Give this node other tags, in place of those that it was given before; what change_tags changed stays so.

        All members are told; before run they are what is told first.

        Raises:
            TagsTooLarge: they take more than 512 bytes.
        """
        self._tags.give(tags)

    async def change_tags(
        self,
        set: Mapping[str, str] = _NOTHING,  # noqa: A002 - Serf's word for it
        delete: Collection[str] = (),
    ) -> None:
        """Change some of this node's tags, and tell all members; it is written down before, if there is a file for it.

        Args:
            set: tags that are new, or have another value than before.
            delete: the names of tags that go, if they are there; one that is set as well stays.

        Raises:
            TagFixed: one of them is among the configuration's fixed_tags.
            TagsTooLarge: all would take more than 512 bytes.
            ValueError: a tag without a name.
            TagsFileError: the change cannot be written down; nothing is changed.
            NotAMember: this node does not gossip any more.
        """
        if self._ended:
            raise NotAMember("this node does not gossip any more: nobody could be told other tags")
        await self._tags.change(set, delete)

    def force_leave(self, name: str, *, prune: bool = False) -> bool:
        """Let a failed member count as left; prune: forget it at once. Tell whether it is known."""
        known = False

        def force() -> None:
            nonlocal known
            known = self.gossip.core.intents.force_leave(name, prune=prune)

        self.gossip.act(force)
        return known

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[MemberEvent | UserEvent | AskedQuery]]:
        """Subscribe to what happens from now on: to members, user events, and queries that are for this node.

        Each user event comes once, whether it was fired here or elsewhere. Those that were fired before this node
        joined do not come, unless it joined without ignore_events.

        The iterator ends when this node is no member any more, and raises EventsMissed if more than 1,024 events wait
        for it, or more than 8 MiB of them.
        """
        async with self.news.subscriptions.open() as events:
            yield events

    # -- user events and queries ---------------------------------------------------------------------------------------

    def send_event(self, name: str, payload: bytes = b"", *, coalesce: bool = False) -> None:
        """Send a user event to all members, this one among them; it is on its way then.

        Args:
            name: of the event.
            payload: whatever goes with it.
            coalesce: of several with this name that come together, the newest may stand for all.

        Raises:
            MessageTooLarge: name and payload, or the encoded event, have more than the configuration's
                user_event_bytes.
            NotAMember: this node does not gossip yet, or not any more.
        """
        self._require(self._is_ready)
        self._talking.send_event(name, payload, coalesce=coalesce)

    def query(
        self,
        name: str,
        payload: bytes = b"",
        *,
        nodes: Sequence[str] = (),
        tags: Mapping[str, str] = MappingProxyType({}),
        timeout: float | None = None,
        relay_factor: int = 0,
        acknowledge: bool = True,
    ) -> QueryAnswers:
        """Ask all members that are alive, this node among them, or some of them; return what gives their answers.

        The query is on its way then. The answers end when all that were asked have answered or are gone, or when the
        time is over: a member that has nothing to say keeps a query open.

        Args:
            name: of the query; of Serf's own names, which begin with `_serf_`, only `_serf_ping`, without a payload.
            payload: whatever goes with it.
            nodes: names of those that are asked; none: all.
            tags: only members are asked whose tag, by its name, matches an expression (RE2, anywhere in the tag's
                value); 128 characters in all.
            timeout: for how long answers are waited for, in seconds; None: as long as gossip needs to reach everybody.
            relay_factor: through how many other members each answer is sent besides, should it be lost on its way.
            acknowledge: each member that has the query says so, before it answers.

        Raises:
            MessageTooLarge: the encoded query has more than the configuration's query_bytes.
            TooManyQueries: 64 queries of this node wait for answers.
            ValueError: a name, an expression, the timeout or the relay factor is none.
            NotAMember: this node does not gossip yet, or not any more.
        """
        self._require(self._is_ready)
        return self._talking.query(
            name,
            payload,
            nodes=nodes,
            tags=tags,
            timeout=timeout,
            relay_factor=relay_factor,
            acknowledge=acknowledge,
        )

    def answer(self, query: AskedQuery, payload: bytes) -> None:
        """Answer a query that events() gave.

        Raises:
            QueryOver: its time is over, or this node has answered it.
            MessageTooLarge: the encoded answer has more than the configuration's query_response_bytes; another can be
                given.
            NotAMember: this node does not gossip.
        """
        self._require(self._running)
        self._talking.answer(query, payload)

    def _require(self, gossips: bool) -> None:
        if not gossips:
            raise NotAMember("this node does not gossip yet, or not any more")

    # -- joining and leaving -------------------------------------------------------------------------------------------

    def _new_lookups(self, nursery: trio.Nursery | None = None) -> Lookups:
        return Lookups(nursery, ServiceRecords(self.gossip.config.name_servers), self.gossip.errors)

    async def learn_host(self, start_addresses: Sequence[StartAddress]) -> None:
        """Learn which host the others are told, where the configuration says learn_host; run does so otherwise.

        Members at the start addresses are asked, and if they are few, members that these know: what most say counts.
        Agents do not say it; if only agents answer, it is the address by which this machine reaches them. If nobody
        answers it is what this node listens on.

        Raises:
            AddressUnavailable: nobody answers, and this node listens on all addresses of its machine; it may pass.
            AddressUnsuitable: no member may be at that address.
        """
        if not self._knows_host:
            await HostLearning(self.gossip, self._lookups).learn(start_addresses)
            self._knows_host = True

    async def run(
        self,
        start_addresses: Sequence[StartAddress] = (),
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
            NameTaken: another member, that is alive or has not been forgotten, has this node's name. No other member
                has seen this node then. Or most members know this node's name at another address, see name_contest.py.
            DirectoryCopied: likewise, and it uses a copy of the same data directory.
            AddressUnavailable: the host that others are told is to be learnt, and nobody answers: see learn_host.
        """
        try:
            await self.learn_host(start_addresses)
            async with trio.open_nursery() as nursery:
                lookups, departed = self._new_lookups(nursery), self.news.departed
                self._lookups, self._running = lookups, True
                await self._keeper.recall()
                before = self._keeper.members_before
                joining = Joining(self.gossip, start_addresses, name_patience, lookups, self._rng, departed, before)
                nursery.start_soon(self._keeper.run)
                nursery.start_soon(self.news.subscriptions.run)
                nursery.start_soon(self.news.peers.run, lambda: self.members())
                await nursery.start(self.news.handlers.run, self.answer)
                await self._start(nursery, joining, task_status)
                if joining.ending is not None:
                    # Raised below, by itself and not in a group.
                    nursery.cancel_scope.cancel()
        finally:
            self._lookups, self._ended = self._new_lookups(), True
            self._running = self._is_ready = False
            self.news.end()
            await self.gossip.close()
        ending = joining.ending or self._contest.ending
        if ending is not None:
            raise ending

    async def _start(self, nursery: trio.Nursery, joining: Joining, task_status: trio.TaskStatus[None]) -> None:
        async def until_it_ends(part: Joining | NameContest) -> None:
            await part.run()
            nursery.cancel_scope.cancel()

        joinable = await joining.first()
        if joining.ending is not None:
            return
        await nursery.start(self.gossip.run)
        nursery.start_soon(until_it_ends, self._contest)
        with trio.move_on_after(START_SECONDS):
            await joining.join_through(joinable)
        self._is_ready = True
        task_status.started()
        if joining.addresses or joining.before:
            nursery.start_soon(until_it_ends, joining)

    async def join(self, addresses: Sequence[StartAddress], *, ignore_events: bool = True) -> int:
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
        joined, unjoined = await exchange_with(self.gossip, others, ignore_events=ignore_events)
        problems = [*problems_of(looked_up), *unjoined]
        if not joined:
            raise JoinFailed(f"no member answered: {'; '.join(problems) or 'there is no address to try'}")
        self.gossip.act(self.gossip.core.intents.announce_join)
        return joined

    async def leave(self) -> None:
        """Leave the cluster in order; returns when the others were told, or the profile's timeouts are over.

        Raises:
            NotAMember: `run` has not begun or is over, or ended meanwhile: the others will see this node fail.
        """
        if self._running:
            self.gossip.act(self.gossip.core.intents.leave)
            await self.news.over.wait()
        if not self.news.has_left:
            raise NotAMember("this node cannot leave the cluster in order: it does not gossip")

    async def close(self) -> None:
        """Close the sockets of a member that does not run; one that runs closes them when it ends."""
        await self.gossip.close()
