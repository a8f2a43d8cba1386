"""The agents' own tools work in a cluster with us, and agents have nothing to complain of."""

import re
from functools import partial
from pathlib import Path

import pytest

from ..membership.running import eventually
from .agents import Agent
from .cluster import ALL, cluster

pytestmark = pytest.mark.system


async def printed_by(one: Agent, *command: str) -> str:
    """Return what a `serf` command prints, whether it succeeds or not."""
    return (await one.try_command(*command)).stdout.decode()


async def test_reachability_and_round_trip_times(tmp_path: Path, key: str | None) -> None:
    async with cluster(tmp_path, key) as members:
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
