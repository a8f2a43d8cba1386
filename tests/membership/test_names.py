"""Names that somebody else has, and nodes that come back at another address."""

from __future__ import annotations

import pytest
import trio

from proglog_trio.errors import DirectoryCopied, NameTaken
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.opening import bind_membership
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.open_queries import MAX_QUERIES
from tests.membership.running import LOCAL, QUICK, Ours, start_ours_in


def tags(opening: int, directory: str = "0123456789abcdef") -> dict[str, str]:
    """What a node says of its data directory."""
    return {"directory_id": directory, "opening": f"{opening:x}", "rpc_addr": "b:8400"}


async def refused(*members: Ours, **said: str) -> str:
    """Start a member b that is refused; return why."""
    second = await bind_membership(GossipConfig(name="b", profile=LOCAL), said)
    with pytest.raises((NameTaken, DirectoryCopied)) as error:
        await second.run([each.address for each in members])
    return f"{type(error.value).__name__}: {error.value}"


@pytest.mark.parametrize("seen_as", ["alive", "failed"])
async def test_a_node_that_crashed_is_let_in_at_its_new_address(seen_as: str) -> None:
    async with start_ours_in() as start:
        profile = LOCAL if seen_as == "alive" else QUICK
        a = await start("a", profile=profile)
        c = await start("c", profile=profile, join=[a.address])
        b = await start("b", profile=profile, join=[a.address], tags=tags(0xFF))
        await c.until_status("alive", "a", "b")
        await b.crash()
        for each in (a, c):
            await each.until_status(seen_as, "b")
        with trio.fail_after(60):  # at the end of that at the latest it would be refused, with no patience at all
            again = await start("b", profile=profile, join=[a.address], tags=tags(0x100))
            for each in (a, c):
                await each.until(
                    lambda seen: seen["b"].port == again.address.port and seen["b"].status is MemberStatus.ALIVE
                )
        assert again.members()["c"].status is MemberStatus.ALIVE
        assert a.membership.news.conflicts == c.membership.news.conflicts == 0
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b"), ("join", "b", "b:8400")]


async def test_a_copy_is_refused_with_the_reason() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address], tags=tags(7))
        await a.until_status("alive", "b")
        for opening in (7, 8, 6):
            why = await refused(a, **tags(opening))
            assert why.startswith(f"DirectoryCopied: node b at {b.address} uses a copy of this data directory")
        assert a.members()["b"].port == b.address.port


async def test_who_is_another_node_or_an_older_one_is_not_let_in() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address], tags=tags(7))
        await a.until_status("alive", "b")
        await b.crash()
        for said in (tags(7), tags(6), tags(8, "another"), {"opening": "8"}, {**tags(8), "opening": "8_0"}):
            assert f"a member named 'b' already, at {b.address}" in await refused(a, **said)
        assert a.membership.news.conflicts == 0


async def test_an_earlier_life_of_a_plain_agent_is_none() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        b = await start("b", join=[a.address], tags={})
        await a.until_status("alive", "b")
        await b.crash()
        assert "NameTaken" in await refused(a, **tags(8))


@pytest.mark.parametrize("questions", [0, MAX_QUERIES], ids=["quiet", "who asks much"])
async def test_a_node_whose_name_most_members_know_elsewhere_yields(questions: int) -> None:
    """It was started alone, and joined by hand: nobody looked at its name then."""
    async with start_ours_in() as start:
        a = await start("a")
        c = await start("c", join=[a.address])
        b = await start("b", join=[a.address])
        for each in (a, b, c):
            await each.until_status("alive", "a", "b", "c")
        second = await bind_membership(GossipConfig(name="b", profile=LOCAL), {})
        ended = trio.Event()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            why = rf"a member named 'b' already, at {b.address}: 2 of 2 members that answered know it elsewhere"
            with pytest.raises(NameTaken, match=why):
                await second.run(task_status=task_status)
            ended.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(run)
                for _ in range(questions):
                    second.query("nobody answers", timeout=3600)
                await second.join([a.address])
                await ended.wait()
        for each in (a, b, c):
            await each.until_status("alive", "a", "b", "c")
            assert each.members()["b"].port == b.address.port


async def test_a_node_stays_where_nobody_knows_its_name_elsewhere() -> None:
    async with start_ours_in() as start:
        a = await start("a")
        contest = a.membership._contest
        assert contest is not None
        assert await contest._settled() is None
        b = await start("b", join=[a.address])
        await b.until_status("alive", "a")
        assert await contest._settled() is None
