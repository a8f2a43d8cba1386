import logging

import pytest
import trio
from attrs import define, field
from trio.testing import MockClock

from proglog_trio.internal_errors import Where
from proglog_trio.membership.membership import Membership
from proglog_trio.membership.peer_notifier import PeerNotifier
from proglog_trio.membership.serf.member import Member, MemberEventKind, MemberStatus
from tests.membership.running import FAILED, JOIN, LEAVE, REAP, UPDATE, Peers, event_of, running


@define
class Slow(Peers):
    """A handler that waits before it is done."""

    gate: trio.Event = field(factory=trio.Event)

    async def join(self, name: str, addr: str) -> None:
        await super().join(name, addr)
        await self.gate.wait()


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        ([(JOIN, "x:1")], ["join x:1"]),
        ([(JOIN, None)], []),
        ([(JOIN, "")], []),
        ([(JOIN, None), (FAILED, None), (REAP, None)], []),
        ([(JOIN, "x:1"), (UPDATE, "x:1")], ["join x:1"]),
        ([(JOIN, "x:1"), (UPDATE, "x:2")], ["join x:1", "leave", "join x:2"]),
        ([(JOIN, "x:1"), (UPDATE, None)], ["join x:1", "leave"]),
        ([(JOIN, None), (UPDATE, "x:1")], ["join x:1"]),
        ([(JOIN, "x:1"), (LEAVE, "x:1")], ["join x:1", "leave"]),
        ([(JOIN, "x:1"), (FAILED, "x:1"), (LEAVE, "x:1"), (REAP, "x:1")], ["join x:1", "leave"]),
        ([(JOIN, "x:1"), (FAILED, "x:1"), (JOIN, "x:1")], ["join x:1", "leave", "join x:1"]),
        ([(JOIN, "x:1"), (FAILED, "x:1"), (JOIN, "x:2")], ["join x:1", "leave", "join x:2"]),
    ],
)
async def test_what_the_handler_is_told(
    happens: list[tuple[MemberEventKind, str | None]], told: list[str], nursery: trio.Nursery
) -> None:
    peers = Peers()
    membership = await running(nursery, peers)
    for kind, rpc_addr in happens:
        membership.news.emit(event_of(kind, "x", rpc_addr))
        await trio.testing.wait_all_tasks_blocked()
    assert [" ".join((what, *rest)) for what, _, *rest in peers.told] == told


async def test_what_the_handler_is_told_when_it_is_slow(nursery: trio.Nursery) -> None:
    slow = Slow()
    membership = await running(nursery, slow)
    async with membership.events() as events:
        membership.news.emit(event_of(JOIN, "x", "x:1"))
        assert await anext(events) == event_of(JOIN, "x", "x:1")
        await trio.testing.wait_all_tasks_blocked()
        assert slow.told == [("join", "x", "x:1")]
        # All of this while it is busy; what is over already it need not know, but that x is not the same it must.
        for kind, name, rpc_addr in (
            (FAILED, "x", "x:1"),
            (JOIN, "x", "x:1"),
            (JOIN, "y", "y:1"),
            (FAILED, "y", "y:1"),
            (JOIN, "z", "z:1"),
            (UPDATE, "z", "z:2"),
        ):
            membership.news.emit(event_of(kind, name, rpc_addr))
            # Subscribers are not kept waiting by the handler.
            assert await anext(events) == event_of(kind, name, rpc_addr)
        slow.gate.set()
        await trio.testing.wait_all_tasks_blocked()
    assert slow.of("x") == [("join", "x", "x:1"), ("leave", "x"), ("join", "x", "x:1")]
    assert slow.of("y") == []
    assert slow.of("z") == [("join", "z", "z:2")]


async def test_the_handler_never_hears_of_this_member_itself(nursery: trio.Nursery) -> None:
    peers = Peers()
    membership = await running(nursery, peers)
    membership.set_tags({"rpc_addr": "me:2"})
    await trio.testing.wait_all_tasks_blocked()
    await membership.leave()
    assert peers.told == []


async def test_every_join_is_followed_by_a_leave_at_the_end() -> None:
    peers = Peers()
    async with trio.open_nursery() as nursery:
        membership = await running(nursery, peers)
        membership.news.emit(event_of(JOIN, "x", "x:1"))
        membership.news.emit(event_of(JOIN, "y", "y:1"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert peers.of("x") == [("join", "x", "x:1"), ("leave", "x")]
    assert peers.of("y") == [("join", "y", "y:1"), ("leave", "y")]


@define
class Raising(Peers):
    """A handler that notes and fails."""

    async def join(self, name: str, addr: str) -> None:
        await super().join(name, addr)
        raise RuntimeError("no way to get there")

    async def leave(self, name: str) -> None:
        await super().leave(name)
        raise ValueError("what peer?")


async def test_a_handler_that_raises_is_logged_and_told_on(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, internal_errors: list[tuple[Where, Exception]]
) -> None:
    raising = Raising()
    membership = await running(nursery, raising)
    membership.news.emit(event_of(JOIN, "x", "x:1"))
    await trio.testing.wait_all_tasks_blocked()
    membership.news.emit(event_of(FAILED, "x", "x:1"))
    membership.news.emit(event_of(JOIN, "y", "y:1"))
    await trio.testing.wait_all_tasks_blocked()
    assert raising.told == [("join", "x", "x:1"), ("leave", "x"), ("join", "y", "y:1")]
    assert membership.news.peers.failures == 3
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [where for where, _ in internal_errors] == [Where.MEMBERSHIP_HANDLER] * 3
    assert len(logged) == 2  # the second join fails like the first
    for words in ("call='join'", "name='x'", "rpc_addr='x:1'", "no way to get there"):
        assert words in logged[0]
    for words in ("call='leave'", "name='x'", "rpc_addr='x:1'", "what peer?"):
        assert words in logged[1]
    assert [member.name for member in membership.members()] == ["me"]  # the others were invented


@define
class Failing(Peers):
    """A handler whose joins fail so many times."""

    failures: int = 0

    async def join(self, name: str, addr: str) -> None:
        await super().join(name, addr)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")


async def test_a_join_that_failed_is_tried_again_until_it_does_not(
    nursery: trio.Nursery, autojump_clock: MockClock, internal_errors: list[tuple[Where, Exception]]
) -> None:
    failing = Failing(failures=3)
    membership = await running(nursery, failing)
    membership.news.emit(event_of(JOIN, "x", "x:1"))
    await trio.sleep(30)
    assert failing.of("x") == [("join", "x", "x:1"), ("leave", "x")] * 3 + [("join", "x", "x:1")]
    assert len(internal_errors) == 3


async def test_a_join_that_failed_is_not_tried_again_for_one_who_left(
    nursery: trio.Nursery, autojump_clock: MockClock, internal_errors: list[tuple[Where, Exception]]
) -> None:
    failing = Failing(failures=1)
    membership = await running(nursery, failing)
    membership.news.emit(event_of(JOIN, "x", "x:1"))
    await trio.testing.wait_all_tasks_blocked()
    membership.news.emit(event_of(FAILED, "x", "x:1"))
    await trio.sleep(30)
    assert failing.of("x") == [("join", "x", "x:1"), ("leave", "x")]
    assert len(internal_errors) == 1


async def test_news_that_failed_is_found_out_by_looking_at_everybody(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, internal_errors: list[tuple[Where, Exception]]
) -> None:
    peers = Peers()
    membership = await running(nursery, peers)
    membership.news.emit(event_of(JOIN, "gone", "gone:1"))
    await trio.testing.wait_all_tasks_blocked()
    note, fails = PeerNotifier.note, True

    def failing(self: PeerNotifier, member: Member, kind: MemberEventKind) -> None:
        nonlocal fails
        if fails:
            fails = False
            raise RuntimeError("unforeseen")
        note(self, member, kind)

    monkeypatch.setattr(PeerNotifier, "note", failing)
    members = [Member("x", "10.0.0.1", 1, {"rpc_addr": "x:1"}, MemberStatus.ALIVE)]
    monkeypatch.setattr(Membership, "members", lambda _self: members)
    membership.news.emit(event_of(JOIN, "x", "x:1"))
    await trio.testing.wait_all_tasks_blocked()
    assert peers.of("x") == [("join", "x", "x:1")]
    assert peers.of("gone") == [("join", "gone", "gone:1"), ("leave", "gone")]
    assert [where for where, _ in internal_errors] == [Where.GOSSIP_NEWS]
