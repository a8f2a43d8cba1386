import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock

from proglog_trio.address import Address
from proglog_trio.errors import NameTaken
from proglog_trio.internal_errors import Where
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.membership import JoinFailed, Membership, NotAMember, bind_membership
from proglog_trio.membership.peer_notifier import PeerNotifier
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.subscriptions import MAX_WAITING_EVENTS, EventsMissed
from tests.membership.running import EVENTUALLY_SECONDS, LOCAL, Peers, start_ours_in

# For tests in which somebody fails: as short as a busy machine allows.
QUICK = evolve(
    LOCAL,
    probe_interval=0.3,
    probe_timeout=0.15,
    suspicion_multiplier=2,
    gossip_interval=0.05,
    gossip_to_the_dead=2.0,
    push_pull_interval=1.0,
)


def event_of(kind: MemberEventKind, name: str, rpc_addr: str | None) -> MemberEvent:
    """An event about one member."""
    tags = {} if rpc_addr is None else {"rpc_addr": rpc_addr}
    status = MemberStatus.FAILED if kind is MemberEventKind.FAILED else MemberStatus.ALIVE
    return MemberEvent(kind, (Member(name, "127.0.0.1", 1, tags, status),))


def open_files() -> int:
    """How many files and sockets this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# -- joining -----------------------------------------------------------------------------------------------------------


async def test_two_see_each_other_and_leave_nothing_behind() -> None:
    before = open_files()
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        # Whoever has joined knows who is there.
        assert set(b.members()) == {"a", "b"}
        await a.until_status("alive", "a", "b")
        assert [member.name for member in a.membership.members()] == ["a", "b"]
        assert a.members()["b"].port == b.address.port
        tasks = trio.lowlevel.current_statistics().tasks_living
        await b.crash()
        # Its task, the loops in it, and as many again as have ended in the meantime.
        assert trio.lowlevel.current_statistics().tasks_living <= tasks - 5
    assert open_files() == before


async def test_joining_later_by_hand() -> None:
    async with start_ours_in() as start:
        a, b = await start("a"), await start("b")
        assert await b.membership.join([a.address]) == 1
        await a.until_status("alive", "b")
        with pytest.raises(JoinFailed, match=r"no member answered: 127\.0\.0\.1:1: "):
            await b.membership.join([Address("127.0.0.1", 1)])
        with pytest.raises(JoinFailed, match=r"no\.such\.name\.invalid:7946: "):
            await b.membership.join([Address("no.such.name.invalid", 7946)])
        with pytest.raises(JoinFailed, match="there is no address to try"):
            await b.membership.join([b.address])
        assert await b.membership.join([Address("127.0.0.1", 1), a.address]) == 1


async def test_a_start_address_that_answers_later() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        await a.crash()
        b = await start("b", join=[a.address])
        assert set(b.members()) == {"b"}
        again = await start("a", port=a.address.port)
        await b.until_status("alive", "a")
        await again.until_status("alive", "b")


class Names(trio.abc.HostnameResolver):
    """A resolver that knows some names; numeric addresses are not its business."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = names

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - the interface's name
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        assert host is not None
        if host.decode() not in self.names:
            raise trio.socket.gaierror(trio.socket.EAI_NONAME, "Name or service not known")
        return [
            (trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.names[host.decode()]
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_a_name_that_stands_for_several_addresses() -> None:
    async with start_ours_in() as start:
        a = await start("a", host="127.0.0.2")
        b = await start("b", host="127.0.0.3", port=a.address.port)
        trio.socket.set_custom_hostname_resolver(Names(members=["127.0.0.5", "127.0.0.2", "127.0.0.4", "127.0.0.3"]))
        service = Address("members", a.address.port)
        # One of the four is this member itself, one is nobody; a and b did not know each other.
        c = await start("c", host="127.0.0.4", port=a.address.port, join=[service])
        assert set(c.members()) == {"a", "b", "c"}
        await a.until_status("alive", "b", "c")
        await b.until_status("alive", "a", "c")
        assert await c.membership.join([service]) == 2


async def test_a_name_that_stands_for_this_member_alone_is_tried_again() -> None:
    async with start_ours_in() as start:
        names = Names(members=["127.0.0.2"])
        trio.socket.set_custom_hostname_resolver(names)
        a = await start("a", host="127.0.0.2", join=[Address("members", 7946)], port=7946)
        assert set(a.members()) == {"a"}
        await start("b", host="127.0.0.3", port=7946)
        names.names = {"members": ["127.0.0.2", "127.0.0.3"]}
        await a.until_status("alive", "b")


# -- names -------------------------------------------------------------------------------------------------------------


async def test_a_name_that_a_living_member_has() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        await a.until_status("alive", "b")
        async with a.membership.events() as events:
            second = await bind_membership(GossipConfig(name="b", profile=LOCAL), {})
            with pytest.raises(NameTaken, match=f"a member named 'b' already, at {b.address}"):
                await second.run([Address("127.0.0.1", 1), a.address])
            # It was not seen: with the next news that spreads there comes no conflict, and no member came.
            b.membership.set_tags({"zone": "1"})
            await a.until(lambda seen: seen["b"].tags == {"zone": "1"})
            assert a.membership.news.conflicts == b.membership.news.conflicts == 0
            assert (await anext(events)).kind is MemberEventKind.UPDATE


async def test_a_name_that_turns_out_to_be_taken_later() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        await a.crash()
        second = await bind_membership(GossipConfig(name="a", profile=LOCAL), {})
        ended = trio.Event()

        async def run_second(*, task_status: trio.TaskStatus[None]) -> None:
            with pytest.raises(NameTaken):  # by itself, not in a group
                await second.run([a.address], task_status=task_status)
            ended.set()

        async with trio.open_nursery() as nursery:
            await nursery.start(run_second)
            assert set(second.gossip.core.members.by_name) == {"a"}  # alone, for now
            await start("a", port=a.address.port)
            with trio.fail_after(60):
                await ended.wait()


async def test_a_name_that_a_failed_member_has_is_waited_for() -> None:
    async with start_ours_in() as start:
        a = await start("a", profile=QUICK)
        b = await start("b", join=[a.address], profile=QUICK)
        await a.until_status("alive", "b")
        await b.crash()
        await a.until_status("failed", "b")
        second = await start("b", join=[a.address], profile=QUICK, name_patience=EVENTUALLY_SECONDS)
        assert second.address != b.address
        await a.until(lambda seen: seen["b"].port == second.address.port)
        assert a.members()["b"].status is MemberStatus.ALIVE
        assert a.membership.news.conflicts == 0
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b"), ("join", "b", "b:8400")]


async def test_the_same_member_again_at_its_address_does_not_wait() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        await a.until_status("alive", "b")
        await b.crash()
        with trio.fail_after(10):
            again = await start("b", join=[a.address], port=b.address.port)
        assert again.members()["a"].status is MemberStatus.ALIVE


# -- leaving and failing -----------------------------------------------------------------------------------------------


async def test_leaving_alone_takes_no_time() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        began = trio.current_time()
        await a.leave()
        assert trio.current_time() - began < LOCAL.leave_propagation


async def test_leaving_among_others_lets_the_news_spread() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        await a.until_status("alive", "b")
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.membership.leave)
            nursery.start_soon(b.membership.leave)  # once more is no harm
        took = trio.current_time() - began
        assert LOCAL.leave_propagation <= took < LOCAL.leave_propagation + 2 * LOCAL.broadcast_timeout
        await a.until_status("left", "b")
        await b.crash()
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b")]


async def test_a_failed_member_can_be_forced_to_leave_and_to_be_forgotten() -> None:
    async with start_ours_in() as start:
        a = await start("a", profile=QUICK)
        b = await start("b", join=[a.address], profile=QUICK)
        c = await start("c", join=[a.address], profile=QUICK)
        await a.until_status("alive", "b", "c")
        await b.until_status("alive", "c")
        await b.crash()
        await c.crash()
        await a.until_status("failed", "b", "c")
        assert a.membership.force_leave("b")
        assert a.members()["b"].status is MemberStatus.LEFT
        assert a.membership.force_leave("c", prune=True)
        assert set(a.members()) == {"a", "b"}
        assert not a.membership.force_leave("c")
        assert not a.membership.force_leave("who")


# -- tags --------------------------------------------------------------------------------------------------------------


async def test_tags() -> None:
    async with start_ours_in() as start:
        a = await start("a", tags={"rpc_addr": "a:1"})
        b = await start("b", tags={"zone": "1"}, join=[a.address])
        await a.until(lambda seen: "b" in seen and seen["b"].tags == {"zone": "1"})
        assert a.peers.told == []  # a member, no peer
        b.membership.set_tags({"rpc_addr": "b:1"})
        await a.until(lambda seen: seen["b"].tags == {"rpc_addr": "b:1"})
        b.membership.set_tags({"rpc_addr": "b:2"})
        await a.until(lambda seen: seen["b"].tags == {"rpc_addr": "b:2"})
        b.membership.set_tags({})
        await a.until(lambda seen: seen["b"].tags == {})
        assert a.peers.told == [
            ("join", "b", "b:1"),
            ("leave", "b"),
            ("join", "b", "b:2"),
            ("leave", "b"),
        ]
        assert b.peers.told == [("join", "a", "a:1")]
        with pytest.raises(ValueError, match="512"):
            b.membership.set_tags({"tag": "x" * 600})


# -- events ------------------------------------------------------------------------------------------------------------


async def test_events_of_members_that_come_together_are_one() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        c = await start("c")
        async with c.membership.events() as events:
            await c.membership.join([b.address])
            event = await anext(events)
            assert event.kind is MemberEventKind.JOIN
            assert {member.name for member in event.members} == {"a", "b"}


async def test_a_subscriber_that_is_too_slow_is_told() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        async with a.membership.events() as slow, a.membership.events() as quick:
            kinds = [MemberEventKind.JOIN, MemberEventKind.FAILED]
            for number in range(MAX_WAITING_EVENTS + 10):
                a.membership.news.emit(event_of(kinds[number % 2], "b", None))
                await anext(quick)
            for _ in range(MAX_WAITING_EVENTS):
                await anext(slow)
            with pytest.raises(EventsMissed, match="1024"):
                await anext(slow)
            a.membership.news.emit(event_of(MemberEventKind.JOIN, "c", None))
            assert (await anext(quick)).members[0].name == "c"
        assert not a.membership.news.subscriptions._open


# -- the handler -------------------------------------------------------------------------------------------------------


@define
class Slow(Peers):
    """A handler that waits before it is done."""

    gate: trio.Event = field(factory=trio.Event)

    async def join(self, name: str, addr: str) -> None:
        await super().join(name, addr)
        await self.gate.wait()


async def running(nursery: trio.Nursery, handler: Peers) -> Membership:
    """Start a member with a handler."""
    membership = await bind_membership(GossipConfig(name="me", profile=LOCAL), {"rpc_addr": "me:1"}, handler=handler)
    await nursery.start(membership.run)
    return membership


JOIN, UPDATE, LEAVE, FAILED, REAP = (
    MemberEventKind.JOIN,
    MemberEventKind.UPDATE,
    MemberEventKind.LEAVE,
    MemberEventKind.FAILED,
    MemberEventKind.REAP,
)


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
        assert (await anext(events)).kind is JOIN
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
            assert (await anext(events)).members[0].name == name
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


# -- calls when the membership ends, or has ended ----------------------------------------------------------------------


async def _iterate(membership: Membership) -> None:
    async with membership.events() as events:
        async for _ in events:
            pass


async def _leave(membership: Membership) -> None:
    with pytest.raises(NotAMember):
        await membership.leave()


async def _join(membership: Membership) -> None:
    with pytest.raises(JoinFailed):
        await membership.join([Address("127.0.0.1", 9)])


@pytest.mark.parametrize("call", [_iterate, _leave, _join])
async def test_in_a_shielded_finally_nothing_waits_for_what_was_cancelled(
    call: Callable[[Membership], Awaitable[None]], nursery: trio.Nursery
) -> None:
    """Neither who waits already, nor who calls afterwards."""
    other = await running(nursery, Peers())
    async with trio.open_nursery() as outer:
        address = Address("127.0.0.1", other.gossip.endpoint.port)
        membership = await bind_membership(GossipConfig(name="b", profile=LOCAL), {}, handler=None)
        await outer.start(membership.run, [address])
        with trio.CancelScope(shield=True), trio.fail_after(10):
            async with trio.open_nursery() as waiting:
                waiting.start_soon(call, membership)
                await trio.testing.wait_all_tasks_blocked()
                outer.cancel_scope.cancel()
            await call(membership)


async def test_subscribers_are_told_what_happened_before_the_end() -> None:
    async with trio.open_nursery() as nursery:
        membership = await running(nursery, Peers())
        async with membership.events() as events:
            await trio.testing.wait_all_tasks_blocked()
            membership.news.emit(event_of(JOIN, "x", "x:1"))
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(10):
                assert [event.members[0].name async for event in events][-1] == "x"


async def test_leaving_before_it_has_begun() -> None:
    membership = await bind_membership(GossipConfig(name="me", profile=LOCAL), {})
    with pytest.raises(NotAMember):
        await membership.leave()
    await membership.gossip.close()
