from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from proglog_trio.address import Address
from proglog_trio.errors import NameTaken
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.membership import JoinFailed, Membership, NotAMember
from proglog_trio.membership.opening import bind_membership
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind, MemberStatus
from tests.membership.running import (
    EVENTUALLY_SECONDS,
    LOCAL,
    QUICK,
    Peers,
    running,
    start_ours_in,
)


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
            event = await anext(events)
            assert isinstance(event, MemberEvent)
            assert event.kind is MemberEventKind.UPDATE


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


async def test_who_waits_for_a_change_of_a_status_sees_that_a_member_is_leaving() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address])
        await a.until_status("alive", "b")
        seen: list[MemberStatus] = []

        async def look() -> None:
            for _ in range(2):
                await a.membership.status_change()
                seen.append(a.membership.statuses()["b"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await wait_all_tasks_blocked()
            await b.membership.leave()
        assert seen == [MemberStatus.LEAVING, MemberStatus.LEFT]


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


async def test_whoever_looks_after_each_change_misses_none() -> None:
    """Of a status and of tags, and one that comes while it looks."""
    async with start_ours_in() as start:
        a = await start("a", profile=QUICK)
        b = await start("b", tags={"kind": "x", "rpc_addr": "b:1"}, join=[a.address], profile=QUICK)
        await a.until_status("alive", "b")
        membership, like = a.membership, {"kind": "x"}

        async def until(wanted: Callable[[], bool]) -> None:
            seen = -1
            with trio.fail_after(60):
                while not wanted():
                    changed = await membership.change_after(seen)
                    assert changed > seen
                    seen = changed

        assert membership.alive_with_tag("rpc_addr", like=like) == [("b", "b:1")]
        assert membership.alive_with_tag("rpc_addr", like={"kind": "y"}) == []
        seen = await membership.change_after(-1)
        with trio.move_on_after(0.1) as waiting:
            await membership.change_after(seen)
        assert waiting.cancelled_caught
        b.membership.set_tags({"kind": "x", "rpc_addr": "b:2"})
        await until(lambda: membership.alive_with_tag("rpc_addr", like=like) == [("b", "b:2")])
        c = await start("c", tags={"kind": "x", "rpc_addr": "c:1"}, join=[a.address], profile=QUICK)
        await until(lambda: len(membership.alive_with_tag("rpc_addr", like=like)) == 2)
        await b.crash()
        await until(lambda: membership.failed_with_tag("rpc_addr", like=like, most=5) == [("b", "b:2")])
        await c.crash()
        await until(lambda: membership.failed_with_tag("rpc_addr", like=like, most=5) == [("c", "c:1"), ("b", "b:2")])
        assert membership.failed_with_tag("rpc_addr", like=like, most=1) == [("c", "c:1")]
        assert membership.failed_with_tag("other", like={}, most=5) == []
        assert membership.alive_with_tag("rpc_addr", like=like) == []


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


async def test_leaving_before_it_has_begun() -> None:
    membership = await bind_membership(GossipConfig(name="me", profile=LOCAL), {})
    with pytest.raises(NotAMember):
        await membership.leave()
    await membership.gossip.close()
