"""The agents' own tools work in a cluster with us, and agents have nothing to complain of."""

import re
from functools import partial
from pathlib import Path

import pytest
import trio

from proglog_trio.membership.wire.msgpack_structs import encode_object
from tests.interop.agents import Agent
from tests.interop.cluster import ALL, all_of, cluster
from tests.interop.settings import Setting
from tests.membership.running import eventually

pytestmark = pytest.mark.system


async def printed_by(one: Agent, *command: str) -> str:
    """Return what a `serf` command prints, whether it succeeds or not."""
    return (await one.try_command(*command)).stdout.decode()


async def test_reachability_and_round_trip_times(tmp_path: Path, setting: Setting, key: str | None) -> None:
    async with cluster(tmp_path, setting, key) as members:
        # Gossip reaches everybody but for a small chance, so this may have to be tried again.
        for one in (members.x, members.z):
            printed = await eventually(
                partial(printed_by, one, "reachability", "-verbose"), lambda printed: "all live nodes" in printed
            )
            for name in ALL:
                assert f"Ack from '{name}'" in printed, printed
        for name in ("a", "b", "y"):
            printed = await eventually(
                partial(printed_by, members.x, "rtt", name), lambda printed: "Estimated" in printed
            )
            # All are on one machine.
            found = re.search(r"rtt: ([0-9.]+) ms", printed)
            assert found is not None, printed
            assert float(found[1]) < 1000, printed

        # Every agent has probed each of ours by now, and each of ours every agent.
        await members.a.until_measured("b", "x", "y", "z")
        await members.b.until_measured("a", "x", "y", "z")
        await members.a.membership.leave()
        await members.all_see("left", "a", by=(members.b, members.x, members.y, members.z))
        for one in (members.x, members.y, members.z):
            assert one.complaints() == []


ODD = {
    "no versions": {"Vsn": bytes(6)},
    "a version nobody speaks": {"Vsn": bytes((1, 5, 9, 2, 5, 4))},
    "tags of 600 bytes": {"Meta": b"m" * 600},
    "an address of 5 bytes": {"Addr": bytes(5)},
    "a name of 600 bytes": {"Node": b"n" * 600},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_an_odd_member_cuts_nobody_off(tmp_path: Path, setting: Setting, odd: dict[str, bytes]) -> None:
    """One packet about a member that there is not, to an agent and to one of ours."""
    fields = {
        "Incarnation": 1,
        "Node": b"odd",
        "Addr": bytes((127, 0, 0, 1)),
        "Port": 9,
        "Meta": b"",
        "Vsn": bytes((1, 5, 2, 2, 5, 4)),
    }
    packet = b"\x04" + encode_object({name.encode(): value for name, value in (fields | odd).items()})
    async with (
        setting.agent(tmp_path, "x") as x,
        setting.agent(tmp_path, "y") as y,
        setting.start_ours_in() as start,
    ):
        a, b = await start("a"), await start("b")
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as udp:
            await udp.sendto(packet, (a.address.host, a.address.port))
            if "Vsn" not in odd:
                # Agents take it, and tell of it; of such versions they take no state from each other either.
                await udp.sendto(packet, (x.address.host, x.address.port))
                await eventually(x.members, lambda seen: len(seen) == 2)
        assert await b.membership.join([x.address]) == 1
        await y.command("join", str(a.address))
        await y.command("join", str(b.address))
        await all_of(*(partial(one.until_status, "alive", "a", "b", "x", "y") for one in (a, b, y)))
        assert set(a.members()) == {"a", "b", "x", "y"}
