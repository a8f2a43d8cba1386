"""Who has another key, or none, stays out, on both sides."""

from functools import partial
from pathlib import Path

import pytest

from tests.interop.agents import Agent, run_command
from tests.interop.cluster import all_of
from tests.interop.settings import Setting
from tests.membership.running import Ours

pytestmark = pytest.mark.system


async def generated_key() -> str:
    """Return a key as `serf keygen` makes them."""
    return (await run_command("serf", "keygen")).stdout.decode().strip()


async def sees_only(member: Ours | Agent, *names: str) -> bool:
    """Tell whether a member sees these alone."""
    seen = member.members() if isinstance(member, Ours) else await member.members()
    return set(seen) == set(names)


@pytest.mark.parametrize("has_key", [True, False], ids=["wrong key", "no key"])
async def test_who_has_not_the_key_stays_out(tmp_path: Path, setting: Setting, has_key: bool) -> None:
    key, other = await generated_key(), await generated_key() if has_key else None
    async with setting.agent(tmp_path, "x", key=key) as x, setting.start_ours_in() as start:
        a = await start("a", join=[x.address], key=key)
        await all_of(partial(a.until_status, "alive", "a", "x"), partial(x.until_status, "alive", "a", "x"))

        # one of ours at an agent and at one of ours: not joined, and tried again until it is ended
        b = await start("b", join=[x.address, a.address], key=other)
        # an agent at one of ours
        async with setting.agent(tmp_path, "y", key=other) as y:
            said = []
            for address in (a.address, x.address):
                refused = await y.try_command("join", str(address))
                assert refused.returncode != 0
                said.append(
                    (refused.stdout + refused.stderr).decode().replace(str(address), "").replace(address.host, "")
                )
            # It is told the same by us as by an agent; without a key, it cannot read why.
            assert has_key or said[0] == said[1], said
            assert "EOF" not in said[0]
            assert await sees_only(y, "y")
        assert await sees_only(b, "b")
        assert await sees_only(a, "a", "x")
        assert await sees_only(x, "a", "x")
        assert a.membership.gossip.counters.streams_refused >= 2
        assert b.membership.gossip.counters.exchanges_failed == 0  # it looked, and was told nothing to join

        # the right key lets in whom the wrong one kept out
        await b.crash()
        b = await start("b", join=[x.address], key=key)
        await all_of(*(partial(one.until_status, "alive", "a", "b", "x") for one in (a, b, x)))
