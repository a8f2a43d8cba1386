"""Events and queries of agents that can talk to members of ours only."""

from functools import partial
from pathlib import Path

import pytest
from attrs import evolve

from proglog_trio.membership.profile import ProfileName
from tests.interop.agents import agent
from tests.interop.cluster import all_of
from tests.interop.conftest import NO_NAMESPACES
from tests.interop.namespaces import island
from tests.interop.settings import Setting
from tests.membership.running import LAN, start_ours_in

pytestmark = pytest.mark.system

# Only ours can reach all: they repeat what they pass on, so that the luck of a few packets is not what is tested.
INSISTENT = evolve(LAN, retransmit_multiplier=12, push_pull_interval=3.0)


@pytest.mark.skipif(NO_NAMESPACES is not None, reason=str(NO_NAMESPACES))
async def test_events_and_queries_pass_through_us(tmp_path: Path, setting: Setting, key: str | None) -> None:
    async with island() as first, island() as second, island() as third:
        ours_at = first.gateway
        # In the lan profile three others are asked to probe for one, so one of ours always is.
        lan = partial(agent, tmp_path, profile=ProfileName.LAN, key=key, at_defaults=setting.at_defaults)
        async with start_ours_in() as start:
            a = await start("a", host=ours_at, profile=INSISTENT, key=key)
            b = await start("b", host=ours_at, profile=INSISTENT, key=key, join=[a.address])
            async with (
                lan("x", host=first.address, within=first.enter, join=[a.address, b.address]) as x,
                lan("y", host=second.address, within=second.enter, join=[b.address, a.address]) as y,
                lan("z", host=third.address, within=third.enter, join=[a.address, b.address]) as z,
            ):
                names = ("a", "b", "x", "y", "z")
                await all_of(*(partial(one.until_status, "alive", *names) for one in (a, b, x, y, z)))
                # They are apart indeed.
                assert not await first.reaches(second.address, y.address.port)
                assert await first.reaches(ours_at, a.address.port)

                await x.command("event", "deploy", "version 7")
                await all_of(*(partial(one.until_heard, "user", "deploy", "version 7") for one in (x, y, z)))

                # The answers of y and z come back by relay, through us.
                printed = await x.command("query", "-timeout=3s", "-relay-factor=4", "uptime", "since when")
                for name in names:
                    assert f"Ack from '{name}'" in printed, printed
                for name in ("x", "y", "z"):
                    assert f"Response from '{name}': answer of {name}" in printed, printed
                assert ("query", "uptime", "since when") in y.heard()

                printed = await y.command("query", "-timeout=3s", "-relay-factor=4", "-node=a", "-node=z", "for", "you")
                assert "Total Acks: 2" in printed, printed
                assert ("query", "for", "you") not in x.heard()

                # y and z probe each other through us: nobody is taken for dead.
                for one in (x, y, z):
                    assert "EventMemberFailed" not in one.log
                    assert all(member.status == "alive" for member in (await one.members()).values())
