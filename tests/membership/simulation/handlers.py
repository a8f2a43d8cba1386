"""Gives the events of a core to a Membership and watches what its handler is told."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing
from attrs import define, field

from proglog_trio.internal_errors import InternalErrors
from proglog_trio.membership.events.query_handlers import QueryHandlers
from proglog_trio.membership.news import News
from proglog_trio.membership.peer_notifier import RPC_ADDRESS_TAG, PeerNotifier
from proglog_trio.membership.serf.member import MemberEvent
from proglog_trio.membership.subscriptions import Subscriptions


@define
class WatchedHandler:
    """A handler that keeps what it was told, and that may be slow and may fail.

    Attributes:
        me: who must never be named.
        delays: how long each call takes, in turn; a negative one is how long it takes to fail.
    """

    me: str
    delays: Sequence[float] = ()
    peers: dict[str, str] = field(factory=dict)
    calls: list[tuple[str, str, str]] = field(factory=list)

    async def join(self, name: str, addr: str) -> None:
        assert name != self.me
        assert addr
        assert name not in self.peers, f"a second join of {name} before its leave"
        self.peers[name] = addr
        self.calls.append(("join", name, addr))
        await self._work()

    async def leave(self, name: str) -> None:
        assert name != self.me
        assert name in self.peers, f"a leave of {name} without its join"
        self.calls.append(("leave", name, self.peers.pop(name)))
        await self._work()

    async def _work(self) -> None:
        if self.delays:
            delay = self.delays[len(self.calls) % len(self.delays)]
            await trio.sleep(abs(delay))
            if delay < 0:
                raise RuntimeError("this handler fails")


class CannotTellError(Exception):
    """The handler was told what it must not be."""


async def tell(
    me: str, events: Sequence[MemberEvent], delays: Sequence[float], pauses: Sequence[float]
) -> WatchedHandler:
    """Give events to a Membership, with pauses between them, and return its handler after everything was told."""
    handler = WatchedHandler(me, delays)
    errors = InternalErrors()
    news = News(me, errors, PeerNotifier(me, handler, errors), Subscriptions(errors), QueryHandlers({}, errors))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(news.peers.run, list)
        for number, event in enumerate(events):
            news.emit(event)
            if pauses:
                await trio.sleep(pauses[number % len(pauses)])
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(1000.0)
        assert news.peers.failures == sum(
            delays[(number + 1) % len(delays)] < 0 for number in range(len(handler.calls)) if delays
        )
        peers = dict(handler.peers)
        nursery.cancel_scope.cancel()
    assert handler.peers == {}, "when it is over, every peer has left"
    handler.peers = peers
    return handler


def peers_after(me: str, events: Sequence[MemberEvent]) -> dict[str, str]:
    """Return who is a peer after events."""
    peers: dict[str, str] = {}
    for event in events:
        for member in event.members:
            address = member.tags.get(RPC_ADDRESS_TAG)
            if event.kind.value in ("join", "update") and address and member.name != me:
                peers[member.name] = address
            elif event.kind.value != "reap":
                peers.pop(member.name, None)
    return peers


def alternates(
    me: str, events: Sequence[MemberEvent], delays: Sequence[float] = (), pauses: Sequence[float] = ()
) -> WatchedHandler:
    """Check that a handler hears joins and leaves of each peer in turn, never of this node, and ends with the truth."""
    handler = trio.run(tell, me, events, delays, pauses, clock=trio.testing.MockClock(autojump_threshold=0))
    assert handler.peers == peers_after(me, events)
    return handler
