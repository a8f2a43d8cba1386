"""The handler of peers, told of each that comes and goes: in turn, one at a time, and again where it failed.

What the handler knows and what is true are kept apart. News changes what is true; the difference is told when the
handler has time. So a peer that came and went meanwhile is not told of at all, and none is told of twice.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import trio
from attrs import define, field

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.serf.member import Member, MemberEventKind, MemberStatus
from proglog_trio.membership.wakeup import Wakeup

RPC_ADDRESS_TAG = "rpc_addr"
"""The tag that makes a member a peer: where it takes RPCs."""
HANDLER_CLOSE_SECONDS = 5.0
FIRST_HANDLER_RETRY_SECONDS = 1.0
LONGEST_HANDLER_RETRY_SECONDS = 60.0


class PeerHandler(Protocol):
    """Told of peers: members other than this node that say, by the tag rpc_addr, where they take RPCs."""

    async def join(self, name: str, addr: str) -> None:
        """A peer is there. Not called again for this name before leave was.

        When it raises, leave and join are called again after a while, for as long as the peer is there.
        """

    async def leave(self, name: str) -> None:
        """A peer has left, has failed, or is now at another address (then join follows)."""


@define
class _PeerNews:
    """What the handler is to be told of one peer.

    Attributes:
        address: where it is now; None: it is no peer.
        went: it was gone in between, so that its leave is told even if it is at the same address again.
    """

    address: str | None = None
    went: bool = False


@define
class _Retry:
    """A peer whose join failed: when it is tried again, and how long that was waited for, in seconds."""

    at: float
    wait: float


@define(eq=False)
class PeerNotifier:
    """Tells a handler of peers.

    Attributes:
        me: this node's name, of which the handler is told nothing.
        handler: see PeerHandler; None: nothing is told.
        errors: where errors of the handler are counted.
        failures: how often it raised.
    """

    me: str
    handler: PeerHandler | None
    errors: InternalErrors
    failures: int = 0
    # By name: what the handler was not told of yet, and with which address it knows a peer.
    _untold: dict[str, _PeerNews] = field(factory=dict)
    _told: dict[str, str] = field(factory=dict)
    # Of peers in _told whose join raised.
    _retries: dict[str, _Retry] = field(factory=dict)
    _news: Wakeup = field(factory=Wakeup)
    # Some news was not noted: all members have to be looked at.
    _is_unsure: bool = False

    def note(self, member: Member, kind: MemberEventKind) -> None:
        """Note what the handler must be told; what it was not told of yet is replaced by what is true now."""
        if member.name == self.me:
            return
        news = self._untold.setdefault(member.name, _PeerNews())
        if kind in (MemberEventKind.JOIN, MemberEventKind.UPDATE):
            news.address = member.tags.get(RPC_ADDRESS_TAG) or None
        elif kind is not MemberEventKind.REAP:
            news.address, news.went = None, True
        self._news.set()

    def doubt(self) -> None:
        """Have all members looked at, since some news may not have been noted."""
        self._is_unsure = True
        self._news.set()

    async def run(self, members: Callable[[], list[Member]]) -> None:
        """Tell the handler of peers until cancelled, and then that all are gone.

        A task of its own, since the handler may be slow.

        Args:
            members: returns all members, to be looked at in doubt.
        """
        turns = self.errors.turns(Where.MEMBERSHIP_HANDLER)
        try:
            while True:
                async with turns:
                    with trio.CancelScope(deadline=min((each.at for each in self._retries.values()), default=math.inf)):
                        await self._news.wait()
                    self._news.clear()
                    if self._is_unsure:
                        self._look_at_all(members())
                    self._note_retries()
                    while self._untold:
                        # One at a time: each may begin something.
                        await trio.lowlevel.checkpoint()
                        name = next(iter(self._untold))
                        await self._tell(name, self._untold.pop(name))
        finally:
            with trio.move_on_after(HANDLER_CLOSE_SECONDS, shield=True):
                for name in list(self._told):
                    await self._tell(name, _PeerNews())

    def _look_at_all(self, members: list[Member]) -> None:
        """Note what the handler must be told of all peers, whatever it was told."""
        for member in members:
            is_there = member.status in (MemberStatus.ALIVE, MemberStatus.LEAVING)
            self.note(member, MemberEventKind.UPDATE if is_there else MemberEventKind.FAILED)
        for name in self._told.keys() - {member.name for member in members}:
            self._untold[name] = _PeerNews(None, went=True)
        self._is_unsure = False

    def _note_retries(self) -> None:
        now = trio.current_time()
        for name in [name for name, retry in self._retries.items() if retry.at <= now]:
            if name in self._told:
                # What is known by now of the peer counts, where there is news of it.
                self._untold.setdefault(name, _PeerNews(self._told[name])).went = True
            else:
                del self._retries[name]

    async def _tell(self, name: str, news: _PeerNews) -> None:
        if self.handler is None:
            return
        known = self._told.get(name)
        if known is not None and (news.went or news.address != known):
            del self._told[name]
            await self._call("leave", name, known, partial(self.handler.leave, name))
            known = None
        if known is None and news.address is not None:
            # Before it is called: a join that raises has begun something too, and a leave has to follow it.
            self._told[name] = news.address
            if await self._call("join", name, news.address, partial(self.handler.join, name, news.address)):
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
        self.failures += boundary.failed
        return not boundary.failed
