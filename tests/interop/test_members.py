"""Members come, change, leave and return: each side sees what the other does."""

from functools import partial
from pathlib import Path

import pytest

from tests.interop.cluster import ALL, all_of, cluster
from tests.interop.settings import Setting

pytestmark = pytest.mark.system


async def test_joins_in_both_directions_and_tags_both_ways(tmp_path: Path, setting: Setting, key: str | None) -> None:
    async with cluster(tmp_path, setting, key) as members:
        a, b, x, y, z = members.a, members.b, members.x, members.y, members.z
        for seen in (await x.members(), await y.members(), await z.members()):
            assert set(seen) == set(ALL)
            assert seen["a"].address == str(a.address)
            assert seen["a"].tags == {"rpc_addr": "a:8400"}
        for ours in (a, b):
            assert {name: member.port for name, member in ours.members().items()} == {
                "a": a.address.port,
                "b": b.address.port,
                "x": x.address.port,
                "y": y.address.port,
                "z": z.address.port,
            }
            assert ours.members()["x"].tags == {"role": "web", "rpc_addr": "x:8400"}

        await x.command("tags", "-set", "role=db", "-set", "zone=1", "-delete", "rpc_addr")
        b.membership.set_tags({"rpc_addr": "b:8401", "zone": "2"})
        changed = {"role": "db", "zone": "1"}
        await all_of(
            partial(a.until, lambda seen: seen["x"].tags == changed),
            partial(b.until, lambda seen: seen["x"].tags == changed),
            *(
                partial(one.until, lambda seen: seen["b"].tags == {"rpc_addr": "b:8401", "zone": "2"})
                for one in (x, y, z)
            ),
        )
        assert b.peers.of("x") == [("join", "x", "x:8400"), ("leave", "x")]
        assert b.peers.of("y") == [] == a.peers.of("z")
        assert a.peers.of("a") == []


async def test_leaving_is_seen_and_a_name_may_return_elsewhere(
    tmp_path: Path, setting: Setting, key: str | None
) -> None:
    async with cluster(tmp_path, setting, key) as members:
        a, b, x, y, z = members.a, members.b, members.x, members.y, members.z
        await all_of(b.leave, partial(z.command, "leave"))
        await members.all_see("left", "b", "z", by=(a, x, y))
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b")]
        assert await z.ended() == 0

        await members.ours("b", join=[x.address], tags={"rpc_addr": "b:9000"})
        async with members.agent("z", join=[a.address]) as returned:
            assert returned.address != z.address
            await members.all_see("alive", *ALL, by=(a, x, y, returned))
            assert (await y.members())["z"].address == str(returned.address)
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b"), ("join", "b", "b:9000")]


async def test_death_is_seen_force_leave_makes_it_a_leave_and_a_name_may_return(
    tmp_path: Path, setting: Setting, key: str | None
) -> None:
    async with cluster(tmp_path, setting, key) as members:
        a, b, x, y, z = members.a, members.b, members.x, members.y, members.z
        await all_of(b.crash, z.kill)
        await members.all_see("failed", "b", "z", by=(a, x, y))
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b")]

        assert a.membership.force_leave("z")
        await x.command("force-leave", "b")
        await members.all_see("left", "b", "z", by=(a, x, y))
        assert not a.membership.force_leave("nobody")

        await members.ours("b", join=[y.address], port=b.address.port)
        async with members.agent("z", join=[a.address], at=z.address) as returned:
            await members.all_see("alive", *ALL, by=(a, x, y, returned))
        assert a.peers.of("b") == [("join", "b", "b:8400"), ("leave", "b"), ("join", "b", "b:8400")]
