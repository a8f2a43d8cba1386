"""Nodes that are started again without start addresses."""

from pathlib import Path

import pytest
import trio

from proglog_trio.cli.exit_codes import ExitCode
from tests.members import members, node_inside, statuses, wait_for
from tests.node_process import node_process

LOCAL = ("--gossip-profile", "local")


@pytest.mark.system
async def test_a_node_that_was_stopped_or_killed_finds_its_cluster_again(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        options = ("--node-name", "b", *LOCAL)
        async with node_process(tmp_path / "b", *options, "--start-join-addrs", a.gossip) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            gossip = b.gossip
            assert await b.stop() == ExitCode.DONE  # SIGTERM: it leaves
            await wait_for(a, statuses(a="alive", b="left"))
        again = (*options, "--bind-addr", gossip)
        async with node_process(tmp_path / "b", *again) as b:
            # Ready means: it has found it.
            assert {name: each["status"] for name, each in (await members(b)).items()} == {"a": "alive", "b": "alive"}
            await wait_for(a, statuses(a="alive", b="alive"))
            b.kill()
        async with node_process(tmp_path / "b", *again) as b:
            await wait_for(b, statuses(a="alive", b="alive"))
            await wait_for(a, statuses(a="alive", b="alive"))


async def test_a_leave_may_be_for_good(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a") as a:
        options = ("--node-name", "b", *LOCAL, "--no-rejoin-after-leave")
        async with node_process(tmp_path / "b", *options, "--start-join-addrs", a.gossip) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            assert await b.stop() == ExitCode.DONE
        assert b'"name"' not in await trio.Path(tmp_path / "b" / "members").read_bytes()
        async with node_process(tmp_path / "b", *options) as b:
            assert set(await members(b)) == {"b"}
