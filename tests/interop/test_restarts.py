"""A member of ours that is started again, without start addresses, in a cluster of agents."""

from functools import partial
from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.membership import GossipConfig, Keyring, MemberStatus, ProfileName, UserEvent, bind_membership
from tests.interop.cluster import all_of
from tests.interop.settings import Setting
from tests.membership.running import EVENTUALLY_SECONDS, LAN, Ours, Peers

pytestmark = pytest.mark.system


@pytest.mark.parametrize("leaves", [False, True], ids=["killed", "left"])
async def test_it_finds_the_agents_again_and_no_event_is_replayed(
    tmp_path: Path, setting: Setting, key: str | None, *, leaves: bool
) -> None:
    file = tmp_path / "members"
    async with setting.start_ours_in() as start, trio.open_nursery() as nursery:
        agent = partial(setting.agent, tmp_path, key=key, profile=ProfileName.LAN)
        async with agent("x", "-tag=role=web") as x, agent("y", join=[x.address]) as y, agent("z") as z:
            await z.command("join", str(x.address))
            a = await start("a", join=[x.address], key=key, profile=LAN, snapshot_file=file)
            await all_of(*(partial(each.until_status, "alive", "a", "x", "y", "z") for each in (a, x, y, z)))
            async with a.membership.events() as events:
                await x.command("event", "-coalesce=false", "deploy", "7")
                with trio.fail_after(EVENTUALLY_SECONDS):
                    async for event in events:
                        if isinstance(event, UserEvent):
                            assert (event.name, event.payload) == ("deploy", b"7")
                            break
            # y fails while a sees it; z fails while a is away.
            await y.kill()
            await all_of(*(partial(each.until_status, "failed", "y") for each in (a, x, z)))
            await (a.leave() if leaves else a.crash())
            await z.kill()
            # Agents show one that has left as failed until they hear that it meant to.
            await x.until(lambda seen: seen["a"].status in ("left", "failed"))
            await x.until_status("failed", "z")
            await x.command("event", "-coalesce=false", "deploy", "8")

            config = GossipConfig(
                name="a",
                bind_host=a.address.host,
                bind_port=a.address.port,
                profile=LAN,
                keyring=Keyring.from_base64([key]) if key else None,
                snapshot_file=file,
            )
            membership = await bind_membership(config, {"rpc_addr": "a:8400"})
            again = Ours(membership, Peers())
            heard: list[bytes] = []
            async with membership.events() as events:
                await nursery.start(membership.run)
                assert membership.statuses() == {
                    "a": MemberStatus.ALIVE,
                    "x": MemberStatus.ALIVE,
                    "y": MemberStatus.FAILED,
                    "z": MemberStatus.FAILED,
                }
                assert again.members()["x"].tags == {"role": "web"}
                await x.until_status("alive", "a")
                await x.until_status("failed", "y", "z")
                await x.command("event", "-coalesce=false", "deploy", "9")
                with trio.fail_after(EVENTUALLY_SECONDS):
                    async for event in events:
                        if isinstance(event, UserEvent):
                            heard.append(event.payload)
                        if heard[-1:] == [b"9"]:
                            break
            # x tells all three in its states.
            assert heard == [b"8", b"9"]
            # What has failed is tried again, by both.
            at = Address(z.address.host, z.address.port)
            async with agent("z", at=at, join=[x.address]) as returned:
                await all_of(*(partial(each.until_status, "alive", "z") for each in (again, x, returned)))
            nursery.cancel_scope.cancel()
