"""The directory: makes a new listing whenever there is news of the members, or of where their hosts are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio
from attrs import define, field

from proglog_trio.dns.host_lookups import HostLookups, Lookup
from proglog_trio.dns.listing import Listing, list_members
from proglog_trio.dns.names import Labels
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership import EventsMissed, Member, MemberEvent
from proglog_trio.steps import Turn

LOOK_AGAIN_SECONDS = 30.0
"""After so long the members are looked at without news of them."""
REST_SECONDS = 0.05
"""Between two listings; what happens meanwhile is in the next. Members that come and go all the time cost no more."""


class Members(Protocol):
    """The members of a cluster; a Membership is that."""

    def names(self) -> list[str]:
        """Return the names of all, in their order."""

    def member(self, name: str) -> Member | None:
        """Return the member of a name, or None if none has it."""

    async def status_change(self) -> None:
        """Return when the status of any member has changed: also from alive to leaving, of which there is no event."""

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[object]]:
        """Subscribe to what happens from now on."""


@define(eq=False)
class Directory:
    """Keeps the newest listing.

    Attributes:
        membership: whose members are listed.
        like: tags that they must have.
        zone: the zone's name.
        errors: where unforeseen errors are counted.
        publish: is given each listing.
        hosts: the hosts of those that tell a name.
    """

    membership: Members
    like: Mapping[str, str]
    zone: Labels
    errors: InternalErrors
    publish: Callable[[Listing], None]
    lookup: Lookup | None = None
    hosts: HostLookups = field(init=False)
    _news: trio.Event = field(factory=trio.Event)
    _serial: int = 0

    def __attrs_post_init__(self) -> None:
        self.hosts = HostLookups(self.errors, self._note)
        if self.lookup is not None:
            self.hosts.lookup = self.lookup

    def _note(self) -> None:
        self._news.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """List the members until cancelled; started once there is a first listing."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.hosts.run)
            # Before the first look at the members, so that nothing happens in between.
            await nursery.start(self._watch)
            nursery.start_soon(self._watch_statuses)
            turns = self.errors.turns(Where.DNS_LISTING)
            while True:
                async with turns:
                    self._news = trio.Event()
                    await self._list()
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
                    await trio.sleep(REST_SECONDS)
                    with trio.move_on_after(LOOK_AGAIN_SECONDS):
                        await self._news.wait()

    async def _watch(self, task_status: trio.TaskStatus[None]) -> None:
        """Note that there is news of members, until there will be none."""
        turns = self.errors.turns(Where.DNS_LISTING)
        while True:
            async with turns, self.membership.events() as events:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                self._note()
                try:
                    async for event in events:
                        if isinstance(event, MemberEvent):
                            self._note()
                except EventsMissed:
                    continue
                return

    async def _watch_statuses(self) -> None:
        """Note that a member's status has changed: who is leaving stops soon, and clients keep answers for a while."""
        turns = self.errors.turns(Where.DNS_LISTING)
        while True:
            async with turns:
                await self.membership.status_change()
                self._note()

    async def _list(self) -> None:
        self._serial += 1
        steps = list_members(
            self.membership.names(),
            self.membership.member,
            like=self.like,
            zone=self.zone,
            found=dict(self.hosts.found),
            serial=self._serial,
        )
        turn = Turn()
        turn.begin()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                listing: Listing = end.value
                break
            if turn.is_over:
                await trio.lowlevel.checkpoint()
                turn.begin()
        self.hosts.want(listing.hosts)
        self.publish(listing)
