"""Coordinates, tags and figures beside agents' own: both say the same, and what each says of the other fits."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from proglog_trio.membership.profile import ProfileName
from proglog_trio.membership.serf.vivaldi import DIMENSIONS, estimate, raw_distance
from proglog_trio.membership.wire.coordinates import Coordinate
from tests.interop.agents import READY_SECONDS, Agent, agent
from tests.interop.cluster import all_of, cluster
from tests.interop.settings import Setting
from tests.membership.running import LOCAL, eventually, start_ours

pytestmark = pytest.mark.system

NEAR_SECONDS = 0.05
"""All are on one machine; generous, for one that is busy with other tests."""


async def coordinates_at(one: Agent, *names: str) -> dict[str, Coordinate]:
    """Return the coordinates that an agent has of these members, through its RPC; those that it has."""
    found: dict[str, Coordinate] = {}
    host, _, port = one.rpc.rpartition(":")
    with trio.fail_after(READY_SECONDS):
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            unpacker = msgpack.Unpacker(raw=False)

            async def receive() -> Any:
                while True:
                    for value in unpacker:
                        return value
                    unpacker.feed(await stream.receive_some())

            async def send(sequence: int, command: str, body: dict[str, Any]) -> None:
                head = msgpack.packb({"Command": command, "Seq": sequence}, use_bin_type=False)
                await stream.send_all(head + msgpack.packb(body, use_bin_type=False))

            await send(0, "handshake", {"Version": 1})
            assert not (await receive())["Error"]
            for sequence, name in enumerate(names, 1):
                await send(sequence, "get-coordinate", {"Node": name})
                head, body = await receive(), await receive()
                assert not head["Error"], head
                if body["Ok"]:
                    each = body["Coord"]
                    found[name] = Coordinate(tuple(each["Vec"]), each["Error"], each["Adjustment"], each["Height"])
    return found


async def milliseconds(one: Agent, *names: str) -> float:
    printed = await one.command("rtt", *names)
    found = re.search(r"rtt: ([0-9.]+) ms", printed)
    assert found is not None, printed
    return float(found[1])


async def test_estimates_are_those_of_agents(tmp_path: Path) -> None:
    async with (
        trio.open_nursery() as nursery,
        agent(tmp_path, "x", profile=ProfileName.LOCAL) as x,
        agent(tmp_path, "y", join=[x.address], profile=ProfileName.LOCAL) as y,
    ):
        a = await start_ours(nursery, "a", join=[x.address], profile=LOCAL)
        await all_of(*(partial(one.until_status, "alive", "a", "x", "y") for one in (a, x, y)))

        # An agent's own estimate, and ours of the very coordinates that it made it of: they move with every probe.
        async def look() -> tuple[dict[str, Coordinate], float, dict[str, Coordinate]]:
            before = await coordinates_at(x, "a", "x", "y")
            return (
                before,
                await milliseconds(x, "a", "y") if len(before) == 3 else 0.0,
                await coordinates_at(x, "a", "x", "y"),
            )

        before, printed, _ = await eventually(look, lambda seen: len(seen[0]) == 3 and seen[0] == seen[2])
        assert estimate(before["a"], before["y"]) * 1000 == pytest.approx(printed, abs=0.0006)

        # What it has of us is where we are, or were at its last probe.
        here = a.membership.coordinate("a")
        assert here is not None
        assert len(before["a"].vec) == DIMENSIONS
        assert raw_distance(before["a"], here) < NEAR_SECONDS

        # What we have of agents is where they are; so our estimates are theirs, apart from what has moved since.
        async def ours() -> list[float | None]:
            pairs = ("x", "y"), ("a", "x"), ("a", "y")
            return [a.membership.round_trip(*pair) for pair in pairs]

        estimates = await eventually(ours, lambda seen: None not in seen)
        theirs = [await milliseconds(x, "x", "y"), await milliseconds(x, "a", "x"), await milliseconds(x, "a", "y")]
        for our, their in zip(estimates, theirs, strict=True):
            assert our is not None
            assert 0 < our < 1
            assert our * 1000 == pytest.approx(their, abs=NEAR_SECONDS * 1000)
        assert a.membership.round_trip("a", "nobody") is None
        nursery.cancel_scope.cancel()


async def test_tags_that_we_change_are_seen(tmp_path: Path, setting: Setting, key: str | None) -> None:
    async with cluster(tmp_path, setting, key) as members:
        x, y, z = members.x, members.y, members.z
        changed = {"role": "web", "zone": "2"}
        with trio.fail_after(30):
            await members.b.membership.change_tags({"role": "db", "zone": "2"}, ["rpc_addr"])
            await members.b.membership.change_tags({"role": "web"})
            await all_of(*(partial(one.until, lambda seen: seen["b"].tags == changed) for one in (x, y, z)))
        # `serf members -tag` goes by them, `role` included.
        printed = await x.command("members", "-tag=role=web", "-tag=zone=2", "-format=json")
        assert [member["name"] for member in json.loads(printed)["members"]] == ["b"]
        for one in (x, y, z):
            assert one.complaints() == []


async def test_figures_have_the_names_that_agents_give_them(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery, agent(tmp_path, "x") as x:
        a = await start_ours(nursery, "a", join=[x.address])
        await x.until_status("alive", "a")
        theirs = json.loads(await x.command("info", "-format=json"))
        ours = a.membership.stats()
        assert {name for name, group in theirs.items() if group and name != "event_handlers"} <= {*ours, "tags"}
        assert theirs["serf"].keys() <= ours["serf"].keys()
        same = ("members", "failed", "left", "encrypted", "health_score", "coordinate_resets")
        assert {name: str(ours["serf"][name]) for name in same} == {name: theirs["serf"][name] for name in same}
        # What agents say of versions is what `serf members -detailed` shows.
        seen = {
            each["name"]: each
            for each in json.loads(await x.command("members", "-detailed", "-format=json"))["members"]
        }
        member = a.members()["x"]
        assert member.versions is not None
        assert seen["x"]["protocol"] == {
            "max": member.versions.delegate_max,
            "min": member.versions.delegate_min,
            "version": member.versions.delegate_current,
        }
        nursery.cancel_scope.cancel()
