"""Two members claim one name: the one who was there first stays, and neither agent nor node goes because of us."""

from functools import partial
from pathlib import Path

import pytest

from tests.interop.cluster import all_of
from tests.interop.settings import Setting

pytestmark = pytest.mark.system


@pytest.mark.parametrize("through", ["us", "its holder"])
async def test_the_holder_of_a_contested_name_stays(
    tmp_path: Path, setting: Setting, key: str | None, through: str
) -> None:
    # Only a and b can answer the query by which both x ask whose name it is; without answers both would shut down.
    directory = tmp_path / "second"
    directory.mkdir()
    async with setting.agent(tmp_path, "x", key=key) as x, setting.start_ours_in() as start:
        a = await start("a", join=[x.address], key=key)
        b = await start("b", join=[x.address], key=key)
        await all_of(*(partial(one.until_status, "alive", "a", "b", "x") for one in (a, b, x)))
        async with setting.agent(directory, "x", join=[a.address if through == "us" else x.address], key=key) as second:
            await second.ended()
            assert "minority in name conflict" in second.log or "name conflict" in second.log.lower(), second.log
        if through == "its holder":
            # It asked as well, and was confirmed.
            assert "majority in name conflict" in x.log, x.log
        assert x.process.poll() is None
        for one in (a, b):
            assert (one.members()["x"].address, one.members()["x"].port) == (x.address.host, x.address.port)
            assert one.members()["x"].status.value == "alive"
        assert {name: seen.status for name, seen in (await x.members()).items()} == dict.fromkeys("abx", "alive")


async def test_an_agent_that_claims_the_name_of_one_of_ours_shuts_down(
    tmp_path: Path, setting: Setting, key: str | None
) -> None:
    async with (
        setting.agent(tmp_path, "x", key=key) as x,
        setting.agent(tmp_path, "y", join=[x.address], key=key) as y,
        setting.start_ours_in() as start,
    ):
        a = await start("a", join=[x.address], key=key)
        b = await start("b", join=[y.address], key=key)
        await all_of(*(partial(one.until_status, "alive", "a", "b", "x", "y") for one in (a, b, x, y)))
        async with setting.agent(tmp_path, "a", join=[b.address], key=key) as second:
            await second.ended()
        assert (a.members()["a"].address, a.members()["a"].port) == (a.address.host, a.address.port)
        for one in (x, y):
            seen = (await one.members())["a"]
            assert (seen.address, seen.status) == (str(a.address), "alive")


async def test_agents_let_a_node_in_at_its_new_address(tmp_path: Path, setting: Setting, key: str | None) -> None:
    """They still take its earlier life for alive, and are told that it has left."""
    async with setting.agent(tmp_path, "x", key=key) as x, setting.start_ours_in() as start:
        a = await start("a", join=[x.address], key=key)
        b = await start("b", join=[x.address], key=key, tags={"directory_id": "0a", "opening": "1"})
        await all_of(*(partial(one.until_status, "alive", "a", "b", "x") for one in (a, x)))
        await b.crash()
        again = await start("b", join=[x.address], key=key, tags={"directory_id": "0a", "opening": "2"})
        await all_of(*(partial(one.until_status, "alive", "a", "b", "x") for one in (a, again, x)))
        assert (await x.members())["b"].address == str(again.address)
        assert a.members()["b"].port == again.address.port
        assert "conflicting" not in x.log.lower()


async def test_addresses_are_repeated_as_they_were_told(tmp_path: Path, setting: Setting, key: str | None) -> None:
    """An agent that has heard of another through us hears the same of it from itself, byte for byte."""
    async with (
        setting.agent(tmp_path, "x", key=key) as x,
        setting.agent(tmp_path, "y", join=[x.address], key=key) as y,
        setting.start_ours_in() as start,
    ):
        a = await start("a", join=[x.address], key=key)
        await all_of(*(partial(one.until_status, "alive", "a", "x", "y") for one in (a, x, y)))
        async with setting.agent(tmp_path, "z", join=[a.address], key=key) as z:
            await all_of(*(partial(one.until_status, "alive", "a", "x", "y", "z") for one in (a, x, y, z)))
            # Each exchanges states with each, in both directions.
            for one, other in ((z, x), (z, y), (x, y), (y, z)):
                await one.command("join", str(other.address))
            for one in (x, y, z):
                assert one.complaints() == []
        assert a.membership.news.conflicts == 0
