"""Agents that may not be members stay outside, and see why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from proglog_trio.membership.addresses.allowed_networks import AllowedNetworks
from proglog_trio.membership.membership import JoinFailed
from proglog_trio.membership.serf.member import Member
from tests.interop.agents import end, run_command
from tests.interop.cluster import all_of
from tests.interop.conftest import NO_NAMESPACES
from tests.interop.namespaces import network
from tests.interop.settings import Setting
from tests.interop.test_keys import sees_only
from tests.node_process import READY_SECONDS, clean_environment, read_line

pytestmark = pytest.mark.system


def only_blue(members: Sequence[Member]) -> str | None:
    others = [member.name for member in members if member.tags.get("team", "blue") != "blue"]
    return f"{', '.join(others)}: not of the blue team" if others else None


async def test_an_agent_that_may_not_be_merged_stays_outside_and_sees_why(
    tmp_path: Path, setting: Setting, key: str | None
) -> None:
    async with (
        setting.start_ours_in() as start,
        setting.agent(tmp_path, "x", "-tag=team=blue", key=key) as x,
        setting.agent(tmp_path, "r", "-tag=team=red", key=key) as red,
    ):
        a = await start("a", tags={"team": "blue"}, key=key, merge_check=only_blue)
        await x.command("join", str(a.address))
        await all_of(partial(a.until_status, "alive", "a", "x"), partial(x.until_status, "alive", "a", "x"))

        refused = await red.try_command("join", str(a.address))
        assert refused.returncode != 0
        assert "does not merge your cluster: r: not of the blue team" in (refused.stdout + refused.stderr).decode()
        assert await sees_only(red, "r"), "it was told nothing"
        with pytest.raises(JoinFailed, match="r: not of the blue team"):
            await a.membership.join([red.address])
        assert await sees_only(red, "r")

        # An agent asks nobody: it takes the red one in, and tells of it.
        await red.command("join", str(x.address))
        await x.until_status("alive", "a", "r", "x")
        with pytest.raises(JoinFailed, match="r: not of the blue team"):
            await a.membership.join([x.address])
        await start("last", tags={"team": "blue"}, key=key, join=[x.address])
        await a.until_status("alive", "a", "last", "x")
        assert "r" not in a.members()
        assert a.membership.counters["swim"].not_admitted
        assert a.members()["x"].status.value == "alive"


async def test_agents_outside_the_allowed_networks_stay_outside(tmp_path: Path, setting: Setting) -> None:
    async with (
        setting.start_ours_in() as start,
        setting.agent(tmp_path, "x") as inside,
        setting.agent(tmp_path, "y") as outside,
    ):
        if inside.address.host == outside.address.host:
            pytest.skip("on loopback both have one address")
        allowed = AllowedNetworks.of(f"{setting.host}/32", f"{inside.address.host}/32")
        a = await start("a", allowed_networks=allowed)
        await inside.command("join", str(a.address))
        await all_of(partial(a.until_status, "alive", "a", "x"), partial(inside.until_status, "alive", "a", "x"))
        assert (await outside.try_command("join", str(a.address))).returncode != 0
        with pytest.raises(JoinFailed, match="in none of the networks"):
            await a.membership.join([outside.address])
        await outside.command("join", str(inside.address))
        await inside.until_status("alive", "a", "x", "y")
        await start("last", join=[inside.address], allowed_networks=allowed)
        await a.until_status("alive", "a", "last", "x")
        assert "y" not in a.members()
        assert a.membership.counters["gossip"].sources_refused


async def test_with_agents_alone_it_is_the_address_by_which_they_are_reached(tmp_path: Path, setting: Setting) -> None:
    """An agent answers the question where it sees a node, and does not say it."""
    async with setting.agent(tmp_path, "x") as x, setting.start_ours_in() as start:
        everywhere = "0.0.0.0"  # noqa: S104 - what this is about
        a = await start("a", host=everywhere, learn_host=True, join=[x.address])
        assert a.address.host == setting.host
        await all_of(partial(a.until_status, "alive", "a", "x"), partial(x.until_status, "alive", "a", "x"))
        assert x.complaints() == []


async def test_behind_address_translation_it_is_the_address_that_members_see(tmp_path: Path) -> None:
    """A process on a machine of its own that listens everywhere, and whose packets and streams leave it changed."""
    if NO_NAMESPACES is not None or shutil.which("iptables") is None:
        pytest.skip(NO_NAMESPACES or "iptables is not installed")
    async with network() as running, Setting(running).start_ours_in() as start:
        inside, enter = await running.machine()
        outside = inside.rpartition(".")[0] + ".200"
        for step in (
            # What comes for the address outside is for this machine; what it sends comes from there.
            ("ip", "address", "add", f"{outside}/32", "dev", "lo"),
            ("ip", "link", "set", "lo", "up"),
            ("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", inside, "-j", "SNAT", "--to-source", outside),
        ):
            result = await run_command(*enter, *step)
            if result.returncode:
                pytest.skip(f"no translation can be set up here: {result.stderr.decode().strip()}")
        members = [await start("a")]
        members.append(await start("b", join=[members[0].address]))
        options = [
            "--data-dir", str(tmp_path / "data"), "--node-name", "n", "--bind-addr", "0.0.0.0:8401", "--rpc-port", "0",
            "--insecure", "--gossip-profile", "local", "--advertise-addr", "auto", "--json",
            "--start-join-addrs", ",".join(str(member.address) for member in members),
        ]  # fmt: skip
        command = [*enter, sys.executable, "-m", "proglog_trio", "node", *options]
        with (tmp_path / "errors").open("wb") as errors:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=clean_environment()
            )
        try:
            assert process.stdout is not None
            with trio.fail_after(READY_SECONDS):
                line = await read_line(process.stdout)
            assert line, (tmp_path / "errors").read_text()
            ready = json.loads(line)
            assert ready["gossip_addr"] == f"{outside}:8401"
            assert ready["rpc_addr"].startswith(f"{outside}:")
            for member in members:
                await member.until_status("alive", "n")
                assert member.members()["n"].address == outside
                await member.until_measured("n")
        finally:
            await end(process)
            if process.stdout is not None:
                await process.stdout.aclose()
